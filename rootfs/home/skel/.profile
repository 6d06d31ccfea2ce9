# Login shells start like the others.
if [ -n "$BASH_VERSION" ] && [ -f ~/.bashrc ]; then
	. ~/.bashrc
fi
