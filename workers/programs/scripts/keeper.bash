# Keeps a shell in the agent's pane. The shell of a task may end at any time (`exit 3`, `set -e`, `exec`); this says
# how it ended and starts the next one in the same pane, so the agent goes on.
# Usage: keeper.bash AGENT_FOLDER COMMAND...

folder=$1
shift
trap : INT # A Ctrl-C in the pane is meant for the shell's commands, not for us.

while :; do
    rm -f -- "$folder/ready"
    "$@"
    code=$?
    run=
    [ -e "$folder/current" ] && read -r run <"$folder/current"
    if [ -e "$run/begun" ] && [ ! -e "$run/exit" ]; then
        { [ -e "$run/copied" ] || read -r -t 2 -N 1 _; } <>"$run/drained" # as in shell.bash
        printf '%s shell\n' "$code" >"$run/exit"
        printf x 1<>"$folder/bell"
    fi
done
