"""At most once: for a request that may have been carried out, the result is searched for.

What this package promises to creates, follow-ups, attempts, reruns and the lines of a batch:

- Before a request is sent, it is written down, with a timestamp that says where the list of tasks
  stands (`server_clock`); only a request that may be sent again pays for asking that.
- If its answer is lost, the list is searched for what it made (`search`, `scan`).
  There are three answers: certainly this task; certainly none; it cannot be told, which ends in
  exit status 6. `operation` does all this for a create or a follow-up.
- `judge` has the rule. A task is taken only if it is new, shows the prompt that was sent, and no
  other request from here, nor another shard, can have made it.
- Sent again is only what certainly made nothing: several whole lists agree, a create could not make
  a task any more, each new task is known to be another's, and there are as many others as before.

Three cases end in status 6 although one could guess: a task that is not known here was created
since, as in a shared account; the request has no baseline, because the service could not be asked
or an earlier version wrote it down; two requests with one prompt and different workspaces are lost.

Two things are not seen: a task that was deleted, or is in the list of another account, if the list
was empty before; and a service that shows two long prompts with one beginning as that beginning.
"""
