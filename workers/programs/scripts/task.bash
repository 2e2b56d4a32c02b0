# Sourced into the agent's shell to run the script $__torch_prompt: what it prints goes to the pane and to the file in $__torch_run.
# Everything stays at the top level, so that what the task declares lives on.

: >"$__torch_run/begun"
set +m # as in a script: no notices about jobs in the answer, and Ctrl-C does not reach the copier
exec 199<>"$__torch_run/drained"
{
    tee -- "$__torch_run/output"
    : >"$__torch_run/copied"
    printf x >&199
} <"$__torch_run/pipe" &
disown # or a bare `wait` in the task would wait for the copier, which waits for the task
{ . "$__torch_prompt"; } >"$__torch_run/pipe" 2>&1 199>&-
__torch_end $?
