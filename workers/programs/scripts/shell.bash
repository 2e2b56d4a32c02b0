# The agent's shell reads this when it starts: its prompt, and how it reports the end of a task.

HISTFILE=
PROMPT_COMMAND=__torch_at_prompt
PS1="\\w\\n$__torch_agent> " PS2='> ' PS0='$(__torch_took)'
set +H # a message is run as it was written

# What a background job prints appears behind the prompt as if it were typed; these keys show what is really there.
bind '"\C-x\C-l": redraw-current-line'

# The pane is gone. Without this, the shell would finish the task's script before it ends, and report it as done.
trap 'kill -HUP $(jobs -p) 2>/dev/null; kill -KILL $$' HUP

# The worker sends this with the Ctrl-C that ends a task. The Ctrl-C alone would end only the present command, and if
# that catches it and exits with 0, the shell would go on with the next line.
trap 'kill -INT $$' USR1

# A task has ended with this exit code. Restores for the next task what it may have changed: the prompt, the names of
# commands, the shell's options.
__torch_end() {
    set +eux
    unset -f printf read
    PROMPT_COMMAND=__torch_at_prompt
    PS1="\\w\\n$__torch_agent> " PS2='> ' PS0='$(__torch_took)'
    set +H
    # Waits for the last output to reach the file, but not long: a background job may keep the pipe open.
    [ -e "$__torch_run/copied" ] || read -r -t 2 -N 1 -u 199 _
    exec 199>&-
    printf '%s prompt\n' "$1" >"$__torch_run/exit"
    unset __torch_run
    printf x 1<>"$__torch_bell"
}

# The shell has taken a line and is about to run it.
__torch_took() {
    printf x >>"$__torch_folder/taken"
    printf x 1<>"$__torch_bell"
}

# The shell is at its prompt: it has started, or an interrupt took it out of a task.
__torch_at_prompt() {
    local code=$?
    set -m # takes the terminal from a former shell that was killed
    if [ -n "${__torch_run-}" ]; then
        __torch_end "$code"
    elif [ ! -e "$__torch_folder/ready" ]; then
        : >"$__torch_folder/ready"
        printf x 1<>"$__torch_bell"
    fi
    return "$code"
}
