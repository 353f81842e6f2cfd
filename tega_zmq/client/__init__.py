"""The client: a session's rules without I/O, and the blocking and the asyncio client that run them.

The way of one `put`, from file to file; what the asyncio client does otherwise stands in brackets:

1. `blocking` [`aio`]: `Client.put` takes the arguments, and has `requests` make of them an operation
   (`put`: path, value and expected version are checked) and the request (`write`: `Write` with its fields).
2. `driver`: `Driver.run` makes a waiter. If the helm sleeps and the turn is free, this thread takes the turn
   and goes on itself; else it leaves the rest to the thread at the helm, and sleeps.
   [`aio`: it waits until fewer than `MAX_WRITES` writes are under way; `aiodriver`: `AsyncDriver.run` makes
   a future, and goes on at once: all is done in the thread of the loop.]
3. `engine`: `Engine.write` notes who waits, and if there are ephemeral nodes what to do at the answer.
4. `protocol`: `ClientSession.request` gives the request an id and a deadline. With a session it is put out
   to be sent, without one it is kept until there is one.
5. `engine`: `Engine.frames` encodes what is to be sent (`tega_zmq.wire`); `driver` [`aiodriver`]: `_transmit`
   gives it to the socket by `send` of `link`; for ws:// and wss:// that is a tunnel (`tega_zmq.tunnel`).
6. `driver`: the caller reads for itself for some milliseconds, then the helm does. [`aiodriver`: the loop
   calls `_on_readable`.] `receive` of `link` gives a frame, which goes to `Engine.received`.
7. `engine` decodes it; `protocol`: `ClientSession.received` finds the request by the id, and notes the event
   `Completed` or `Failed`; `engine`: `process` takes the event, has `belongings` keep what was written if
   ephemeral nodes are concerned, and tells the waiter by `resolve` or `reject` of its `Host`, the driver.
8. `driver`: a caller that slept is woken by its lock. [`aiodriver`: the future is done.] `run` raises the
   error; or of the value `requests.as_committed` makes a `Committed` (`results`).

If the connection is lost meanwhile, `protocol` sends the request once more in the session that is resumed:
the node knows by its id whether it is done.
"""
