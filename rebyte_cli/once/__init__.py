"""At most once: for a request that may have been carried out, the result is searched for.

What this package promises to creates, follow-ups, attempts, reruns and the lines of a batch:

- Before a request is sent, it is written down, with a timestamp of the server (`server_clock`).
- If its answer is lost, the list is searched for what it made (`search`, `finder`, `scan`).
  There are three answers: certainly this task; certainly none; it cannot be told, which ends in
  exit status 6. `operation` does all this for a create or a follow-up.
- A task is taken only if its prompt is the one that was sent (`match`) and no other request from
  here, nor another shard, can have made it.
- Sent again is only what certainly made nothing: several whole lists agree, a create could not make
  a task any more, and each task since the send is provably the result of something else. A prompt
  that reads otherwise, a time of another clock or a short list is no such proof.
"""
