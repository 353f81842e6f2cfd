"""A client's side of the tunnel: the whole protocol in binary messages of a WebSocket, through HTTP proxies.

`urls` says what a tunnel's url is, `dialling` opens the WebSocket, `link` moves frames over it, and looks to
the clients and to the uplink like a `client.link.Link`. Only `dialling` and `link` need the library
`websockets` (the extra `tunnel`).
"""
