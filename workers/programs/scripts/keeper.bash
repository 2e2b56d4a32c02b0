# Keeps a shell in the agent's pane. A task may end its shell at any time (`exit 3`, `set -e`, `exec`); then this notes
# the exit code and starts the next shell in the same pane.
# Usage: keeper.bash FOLDER BELL COMMAND...

folder=$1 bell=$2
shift 2
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
        printf x 1<>"$bell"
    fi
done
