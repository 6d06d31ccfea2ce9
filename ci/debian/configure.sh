#!/bin/sh
# Configures the packages of rootfs.tar, and removes or rewrites what they leave that
# differs from one time to the next. A Dockerfile calls it in one line:
#
#	ADD rootfs.tar /
#	RUN ["sh", "/usr/lib/berth/configure"]
#
# It needs what is Essential in Debian, no network, and removes itself. What a program needs
# to run is made again in a way that doesn't differ; what it makes by itself, or can do
# without, goes. Each rule says what would differ.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
umask 022

# Many tools write this time where they would write the present: TeX asks for the
# second variable as well. Python's byte code commonly names the time of its source, but in the
# image all files have one time: it would be out of date, and each import would compile again.
# With this it names the hash of its source. What the compiler's own imports would leave
# names times all the same: none of that.
export SOURCE_DATE_EPOCH=0 FORCE_SOURCE_DATE=1 PYTHONDONTWRITEBYTECODE=1
# The order in which Perl's hashes come out.
export PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0

# Nothing starts here, no server and no timer (invoke-rc.d(8), "policy layer").
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && ours=$policy; }

# base-passwd makes /etc/passwd, without which the others know no owners.
dpkg --force-depends --configure base-passwd
# As on a machine, what others take for granted comes first, such as a su that knows root.
dpkg --force-depends --configure $(dpkg-query -W -f='${Priority} ${Essential} ${Package}\n' | sed -n -E '/^required |^[a-z]+ yes /s/.* //p' |
	grep -vx base-passwd)
# Unpacking runs no scripts. Of those that dpkg would have run before (preinst), most only clear up
# after versions that never were here, and one (python3-debugpy's) takes files of its own package
# for such. But some make the users that their postinst takes for granted (mariadb-server's).
unpacked() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = unpacked ]; }
for script in $(grep -lE '\b(adduser|addgroup|useradd|groupadd|systemd-sysusers)\b' /var/lib/dpkg/info/*.preinst); do
	package=$(basename "$script" .preinst)
	unpacked "$package" || continue
	! unpacked adduser || dpkg --configure adduser # it wants its settings
	DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=${package%:*} DPKG_MAINTSCRIPT_ARCH=$(dpkg-query -W -f='${Architecture}' "$package") \
		DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_RUNNING_VERSION=$(dpkg-query -W -f='${Version}' dpkg) "$script" install </dev/null
done
dpkg --configure -a </dev/null

[ -z "${ours-}" ] || rm -f $policy

# /etc/shadow bears the day on which each entry was made: its third field. Empty, passwords don't age.
[ ! -e /etc/shadow ] || sed -i -E 's/^([^:]*:[^:]*:)[0-9]+:/\1:/' /etc/shadow
# Locks, and backups of what was there before.
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock
rm -f /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/lib/dpkg/lock* /var/lib/dpkg/triggers/Lock
# Logs bear times.
find /var/log -type f -delete
# ldconfig's cache has the inode and time of each library. It makes another when it runs.
rm -f /var/cache/ldconfig/aux-cache
# Caches of fonts bear the times of their folders; programs make them for their user.
rm -rf /var/cache/fontconfig/*
find /usr/share/fonts -name .uuid -delete 2>/dev/null || true
# Caches of icons and of GIO's modules are in the order of a folder; programs look for themselves.
find /usr/share/icons -name icon-theme.cache -delete 2>/dev/null || true
find /usr/lib -name giomodule.cache -delete 2>/dev/null || true
# The index of manual pages bears times; man reads pages without it.
find /var/cache/man -mindepth 1 -delete 2>/dev/null || true
# Java's archive of loaded classes has addresses and times; it starts without.
find /usr/lib/jvm -name 'classes*.jsa' -delete 2>/dev/null || true
# TeX's formats are made for the time above, but tex's own, which has the present day, and
# LuaTeX's, whose tables have another order each time: whoever runs these makes them, once, in
# their home (mktexfmt). ls-R lists what is there. The logs of making formats bear times.
find /var/lib/texmf/web2c -path '*/luahbtex/*.fmt' -delete -o -path '*/luatex/*.fmt' -delete -o -path '*/tex/*.fmt' -delete 2>/dev/null || true
[ ! -e /var/lib/texmf/ls-R ] || mktexlsr /var/lib/texmf
find /var/lib/texmf -name '*.log' -delete 2>/dev/null || true
# git-lfs writes its lines of git's configuration in any order.
if git config --system --get-regexp '^filter\.lfs\.' >/tmp/lfs 2>/dev/null; then
	git config --system --remove-section filter.lfs
	sort /tmp/lfs | while read -r key value; do git config --system "$key" "$value"; done
fi
# Octave's list of its packages begins with when and where it was written.
sed -i -E '1s/^(# Created by Octave [^,]*),.*/\1, Thu Jan 01 00:00:00 1970 UTC <root@build>/' /usr/share/octave/octave_packages 2>/dev/null || true

# Keys and certificates are random, and no secret belongs into an image. ssh-keygen -A and
# make-ssl-cert generate-default-snakeoil make them, where a server shall run.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
find /etc/ssl/certs -lname '*ssl-cert-snakeoil.pem' -delete 2>/dev/null || true
# Seeds of random numbers.
rm -f /var/lib/systemd/random-seed /var/lib/urandom/random-seed
# Databases have random names, or times, inside. pg_createcluster and mariadb-install-db
# make them, where a server shall run.
rm -rf /var/lib/postgresql/*/main /etc/postgresql/*/main
find /var/lib/mysql -mindepth 1 -delete 2>/dev/null || true
# So has that of postfix's aliases, which newaliases makes.
rm -f /etc/aliases.db

# The name of a machine is random. D-Bus wants one, and nobody boots this image.
if [ -e /etc/machine-id ]; then printf 'berth' | md5sum | cut -c1-32 >/etc/machine-id; fi
if [ -f /var/lib/dbus/machine-id ] && [ ! -h /var/lib/dbus/machine-id ]; then
	rm /var/lib/dbus/machine-id
	ln -s /etc/machine-id /var/lib/dbus/machine-id
	[ -e /etc/machine-id ] || printf 'berth' | md5sum | cut -c1-32 >/etc/machine-id
fi

# Lists of loaders are in the order of a folder, a paragraph each, below a comment.
for list in /usr/lib/*/gdk-pixbuf-*/*/loaders.cache /usr/lib/*/gtk-*/*/immodules.cache; do
	[ -e "$list" ] || continue # a pattern that nothing matches stands for itself
	perl -0777 -i -pe '
		my @all = split /\n{2,}/; my @head;
		push @head, shift @all while @all && $all[0] !~ /^"/m;
		$_ = join("\n\n", @head, sort map { s/^\n+|\n+$//gr } @all) . "\n\n";' "$list"
done

# Java's list of trusted certificates (a key store of the kind JKS) has the time at which each
# came in, and a sum over all: SHA-1 of the password, of these words, and of what is before it.
# Their order is that of a folder.
store=/etc/ssl/certs/java/cacerts
if [ -s $store ] && [ "$(od -An -tx1 -N4 $store | tr -d ' ')" = feedfeed ]; then
	perl -e '
		local $/; open my $in, "<:raw", $ARGV[0] or die; my $all = <$in>;
		my ($magic, $version, $count) = unpack "N3", $all; my $at = 12; my %entries;
		my $text = sub { my $n = unpack "n", substr $all, $at, 2; my $s = substr $all, $at, 2 + $n; $at += 2 + $n; $s };
		for (1 .. $count) {
			my $tag = substr $all, $at, 4; $at += 4;
			die "an entry is no certificate\n" if unpack("N", $tag) != 2;
			my $alias = $text->(); $at += 8; my $kind = $text->();
			my $n = unpack "N", substr $all, $at, 4; my $certificate = substr $all, $at, 4 + $n; $at += 4 + $n;
			$entries{$alias} = $tag . $alias . "\0" x 8 . $kind . $certificate;
		}
		die "it is longer than its entries\n" if $at + 20 != length $all;
		binmode STDOUT; print pack("N3", $magic, $version, $count), map { $entries{$_} } sort keys %entries;' $store >$store.new
	{ printf 'changeit' | sed 's/./\x00&/g'; printf 'Mighty Aphrodite'; cat $store.new; } | sha1sum | cut -c1-40 |
		perl -ne 'chomp; binmode STDOUT; print pack "H40", $_' >$store.sum
	cat $store.new $store.sum >$store
	rm $store.new $store.sum
fi

# What no image has.
find /run -mindepth 1 ! -path /run/lock -delete # that one is of base-files
rm -rf /tmp/* /var/tmp/* ~root/.cache /usr/lib/berth/configure
rmdir /usr/lib/berth 2>/dev/null || true
