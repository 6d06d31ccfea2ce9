# Yours: copied once into the home that your containers share.
# The prompt and colours come from /etc/bash.bashrc in the image.

# Keep the history of every container, also of those that end suddenly.
HISTSIZE=10000
HISTFILESIZE=20000
HISTCONTROL=ignoreboth
shopt -s histappend
PROMPT_COMMAND='history -a'
