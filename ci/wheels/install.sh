#!/bin/sh
# Installs the wheels beside this file, by Debian's own pip, below a folder: such as
# /usr/local/lib/python3.13/dist-packages and /usr/local/bin below it. What it leaves
# depends on the wheels alone, and needs no network.
#
#	/wheels/install /installed
set -eu
: "${1:?names the folder to install to}"
umask 022
mkdir -p "$1"
# Neither settings of pip nor those of Python count, be they in the environment or in files.
module() {
	env -i PATH="$PATH" LC_ALL=C.UTF-8 HOME=/nonexistent PIP_CONFIG_FILE=/dev/null PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 \
		python3 -m "$@"
}
# --break-system-packages: Debian's pip keeps away from what apt installs; this is beside it,
# in /usr/local.
cd /
module pip install --no-index --find-links=/wheels --require-hashes --no-deps --no-compile --ignore-installed --root="$1" \
	--break-system-packages --root-user-action=ignore --no-cache-dir --disable-pip-version-check --no-input --quiet \
	--requirement=/wheels/requirements.txt
# Byte code that names the time of its source would be stale, since an image's files have
# another time, and whoever isn't root would compile at each import. This one isn't checked
# against its source. Some packages have files that no Python compiles: they are left out.
if [ -d "$1/usr/local/lib" ]; then
	module compileall -qq --invalidation-mode unchecked-hash -s "$1" -p / "$1/usr/local/lib" || echo "Some files weren't compiled." >&2
fi
# The time that says that these files have none (ci/image): the layer stays the same when
# the image's date moves.
find "$1" -exec touch -h -d @315532800 {} +
