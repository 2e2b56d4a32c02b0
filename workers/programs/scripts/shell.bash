# Read by the agent's shell when it starts: its prompt, and how a task's end is told.

HISTFILE=
PROMPT_COMMAND=__torch_at_prompt
PS1="\\w\\n$__torch_agent> " PS2='> ' PS0='$(__torch_took)'
set +H # a message is run as it was written

# What a job in the background prints stands behind the prompt, like something typed; this shows what is really there.
bind '"\C-x\C-l": redraw-current-line'

# The pane is gone. Left to itself, the shell would finish the task's script before it goes, and call it done.
trap 'kill -HUP $(jobs -p) 2>/dev/null; kill -KILL $$' HUP

# Comes with a Ctrl-C that ends the task. The Ctrl-C alone would end the present command, and if the command catches it
# and ends in peace, the shell would go on with the next line.
trap 'kill -INT $$' USR1

# A task has ended with this exit code. Whatever it made of the prompt, the names of commands and the shell's options, the
# next one finds them as they were.
__torch_end() {
    set +eux
    unset -f printf read
    PROMPT_COMMAND=__torch_at_prompt
    PS1="\\w\\n$__torch_agent> " PS2='> ' PS0='$(__torch_took)'
    set +H
    # The last output is on its way to the file; a job left in the background may keep it open for ever.
    [ -e "$__torch_run/copied" ] || read -r -t 2 -N 1 -u 199 _
    exec 199>&-
    printf '%s prompt\n' "$1" >"$__torch_run/exit"
    unset __torch_run
    printf x 1<>"$__torch_folder/bell"
}

# The shell has taken a line and is about to run it.
__torch_took() {
    printf x >>"$__torch_folder/taken"
    printf x 1<>"$__torch_folder/bell"
}

# The shell is at its prompt: it has started, or an interrupt took it out of a task.
__torch_at_prompt() {
    local code=$?
    set -m # takes the terminal from a former shell that was killed
    if [ -n "${__torch_run-}" ]; then
        __torch_end "$code"
    elif [ ! -e "$__torch_folder/ready" ]; then
        : >"$__torch_folder/ready"
        printf x 1<>"$__torch_folder/bell"
    fi
    return "$code"
}
