//! Where we answer otherwise than Kea 2.2 on purpose, and why: the rows of the table in `docs/operations.md`.

use serde_json::Value;

/// The reason for which an answer differs, if it is a known one.
pub(crate) fn reason(request: &str, kea: &Value, ours: &Value) -> Option<&'static str> {
    let says = |part: &str| ours["text"].as_str().is_some_and(|text| text.contains(part));
    let asks = |part: &str| request.contains(part);
    let codes = (kea["result"].as_i64()?, ours["result"].as_i64()?);
    let same_but = |member: &str| {
        let without = |answer: &Value| {
            let mut answer = answer.clone();
            answer.as_object_mut().map(|map| map.remove(member));
            answer
        };
        without(kea) == without(ours)
    };
    Some(match codes {
        (1, 4) if same_but("result") => "a conflict has a code of its own since 2.4",
        (1, 1) if same_but("text") => "an error is told in other words",
        (0, 0) if asks("\"config-reload\"") && same_but("arguments") => "the answer has the hash since 2.4",
        (0, 0) if asks("\"config-test\"") && same_but("text") => {
            "as in 3.x: there can be several control sockets"
        }
        (0, 0) if asks("\"stat-lease4-get\"") && same_but("arguments") => {
            "declined leases count as assigned, as in 3.x"
        }
        (0, 0) if asks("\"subnets\":[1,1]") => "each lease is listed once",
        (0, 1) if says("'iaid' parameter is specific to DHCPv6.") => "iaid is refused, as in 3.x",
        (0, 1) if says("'comment' parameter is not a string") => "a comment is a text",
        (0, 1) if says("expected a hw-address or a client-id") => "a lease of nobody could not be read again",
        (0, 1) if says("expected an 'expire' of at most") => "seconds are counted up to 2106",
        (0, 1) if says("Illegal leading zeros") => "a number has no leading zeros, as in 3.x",
        (0, 1) if asks("\"renew-timer\":\"x\"") => "a timer is a number",
        (0 | 3, 1) if says("'subnet-id' parameter") || says("listed subnet identifiers must be numbers") => {
            "an identifier beyond 32 bits or below 0 is none"
        }
        (1, 0) if asks("\"origin\":1") => "an origin can be a number, as in 3.x",
        _ => return None,
    })
}
