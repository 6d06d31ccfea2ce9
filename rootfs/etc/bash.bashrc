# Settings of every interactive shell in the container.
[ -n "$PS1" ] || return

# Follow the terminal when it is resized.
shopt -s checkwinsize

# User and host in yellow: one sees at once that one is inside.
if [ -z "$NO_COLOR" ] && [ "$TERM" != dumb ]; then
	PS1='\[\e[01;33m\]\u@\h\[\e[00m\]:\[\e[01;34m\]\w\[\e[00m\]\$ '
	alias ls='ls --color=auto' grep='grep --color=auto'
else
	PS1='\u@\h:\w\$ '
fi
