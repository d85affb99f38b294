//! What a browser, a health check or a scraper gets that speaks HTTP to the client port.

/// A whole response; the connection closes behind it. HTTP/2 clients show it as a protocol error with this text.
pub const RESPONSE: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n",
    "Content-Length: 405\r\n",
    "Connection: close\r\n",
    "\r\n",
    "This is the client port of a ZooKeeper server (Oxkeeper). It speaks ZooKeeper's own protocol, not HTTP.\n",
    "\n",
    "For a client:        give host:port, without http://, to a ZooKeeper client or to zkCli.sh -server host:port.\n",
    "For a health check:  send the four bytes srvr (or ruok, if 4lw.commands.whitelist has it) and read the text.\n",
    "For metrics:         send the four bytes mntr, if 4lw.commands.whitelist has it.\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_as_long_as_it_says() {
        let (head, body) = RESPONSE.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
