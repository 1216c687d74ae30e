"""Rooms over WebSockets: who comes back gets what was missed, and is told the truth about it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest
import routers
from routers import PATIENCE, TOKENS, Client, Router, until
from websockets.exceptions import ConnectionClosed, InvalidStatus

# ------------------------------------------------------------------ cut and return


def test_cut_and_return_is_complete_and_in_order(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    ada.say("before")
    assert ben.hear() == "before"
    ben.cut()
    for index in range(30):
        ada.say(index)
    ben.join()
    back = ben.returned
    assert back["type"] == "reconnection-detected" and back["recovered"] is True
    assert back["missed_message_count"] == 30 and "reason" not in back
    assert isinstance(back["disconnect_duration"], float) and 0 <= back["disconnect_duration"] < 60
    assert isinstance(back["position"], str)
    assert ben.hear(30) == list(range(30))
    ada.say("after")
    assert ben.listen(1) == [{"sequence": 32, "from": "ada", "data": "after"}]
    assert ben.sequences == list(range(1, 33))


def test_a_return_before_the_first_message(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    ben.close()
    ben.join()
    assert ben.returned["recovered"] is True and ben.returned["missed_message_count"] == 0
    ben.cut()
    ada.say("first")
    ben.join()
    assert ben.returned["missed_message_count"] == 1 and ben.hear() == "first"


def test_twice_with_the_same_position(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    position = ben.position
    ben.cut()
    ada.say("missed")
    for _ in range(2):
        ben.position = position  # as if the replay had not arrived
        ben.join()
        assert ben.returned["recovered"] and ben.hear(1) == ["missed"]
        ben.cut()
    ben.join()
    assert ben.returned["recovered"] and ben.returned["missed_message_count"] == 0


def test_cut_during_a_replay(room):
    """Only what has arrived in full moves the client on."""
    with Router("--window", 5000, "--rate", 1e6, "--burst", 1000000, "--queue-bytes", 100_000_000) as router:
        ada, ben = router.client(room, "ada"), Client(router, room, "ben")
        ben.join()
        ben.cut()
        count = 200
        for index in range(count):
            ada.say([index, "x" * 4000])
        # So large that the frames do not fit the network's buffers: it is cut with some of them under way.
        ben.connect()
        ben.send(type="join", access=ben.access, position=ben.position, token=ben.token)
        ben.wait(lambda: ben.heard, "the first messages")
        first = len(ben.heard)
        assert 0 < first < count
        ben.cut()
        ben.sequences.clear()
        ben.join()
        assert ben.returned["recovered"] is True and ben.returned["missed_message_count"] == count
        assert [data[0] for data in ben.hear(count)] == list(range(count))
        assert ben.sequences == list(range(1, count + 1))


def test_back_before_the_old_connections_end_is_noticed(router, room):
    ada, old = router.client(room, "ada"), router.client(room, "ben")
    new = Client(router, room, "ben")
    new.position, new.token = old.position, old.token
    ada.say("one")
    new.join()  # `old` is still up: nobody has closed anything
    assert new.returned["recovered"] and new.hear() == "one"
    assert old.closed() == 4409
    ada.say("two")
    assert new.hear() == "two"
    new.pong()
    status, state, _ = router.ask(f"webrtc/rooms/{room}/reconnection-state", "ben")
    assert status == 200 and state["state"]["is_connected"] is True


def test_messages_that_come_during_the_join_are_neither_lost_nor_doubled(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    stop, said = threading.Event(), []

    def talk():
        while not stop.is_set():
            said.append(ada.say(len(said))["sequence"])

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        for _ in range(40):
            ben.cut()
            ben.join()
            assert ben.returned["recovered"] is True, ben.returned
            ben.hear(max(1, ben.returned["missed_message_count"]))
    finally:
        stop.set()
        talker.join(PATIENCE)
    ben.wait(lambda: said[-1] in ben.sequences, "the last message")
    assert ben.sequences == list(range(1, said[-1] + 1))


def test_too_long_away_is_told_as_lost(room):
    with Router("--window", 5) as router:
        ada, ben = router.client(room, "ada"), router.client(room, "ben")
        ben.cut()
        for index in range(6):
            ada.say(index)
        ben.join()
        back = ben.returned
        assert back["recovered"] is False and back["reason"] == "trimmed" and back["missed_message_count"] == 0
        ada.say("from here on")
        assert ben.hear() == "from here on"
        ben.cut()
        ada.say("missed")
        ben.join()
        assert ben.returned["recovered"] is True and ben.hear() == "missed"


def test_a_leave_is_for_good(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    position, token = ben.position, ben.token
    ben.leave()
    ada.say("not for ben")
    ben.join(position=position, token=token)
    assert ben.returned["recovered"] is False
    assert ben.heard == []
    status, _, _ = router.ask(f"webrtc/rooms/{room}/reconnection-state", "cat")
    assert status == 404
    ben.leave()
    ada.leave()
    assert router.ask(f"webrtc/rooms/{room}/reconnection-state", "ada")[0] == 404


@pytest.mark.parametrize(
    "position, token", [("nonsense", None), ("", "nonsense"), ("A" * 32, "B" * 22), ("\ud800", "")]
)
def test_a_made_up_position_opens_nothing(router, room, position, token):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    ada.say("secret")
    ben.cut()
    ben.join(position=position, token=token)
    assert ben.returned["recovered"] is False and ben.heard == []


def test_messages_to_one_reach_only_that_one_also_later(router, room):
    ada, ben, cat = (router.client(room, user) for user in ("ada", "ben", "cat"))
    ben.cut(), cat.cut()
    ada.say("for ben", to="ben", kind="offer", negotiation=1)
    ada.say("for all")
    ben.join(), cat.join()
    assert ben.listen(2) == [
        {"sequence": 1, "from": "ada", "to": "ben", "kind": "offer", "data": "for ben"},
        {"sequence": 2, "from": "ada", "data": "for all"},
    ]
    assert cat.hear(1) == ["for all"] and cat.returned["missed_message_count"] == 1
    assert ada.refused(type="message", data=1, to="nobody")["error"] == "UNKNOWN_RECIPIENT"


def test_a_message_sent_again_is_stored_once(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    first = ada.say("once", id="m1")
    ada.cut()
    ada.join()
    again = ada.say("once", id="m1")
    assert (first["duplicate"], again["duplicate"]) == (False, True) and again["sequence"] == first["sequence"]
    ada.say("next", id="m2")
    assert ben.hear(2) == ["once", "next"]


def test_a_client_to_whom_nobody_talks_stays_recoverable(room):
    with Router("--window", 10, "--burst", 1000) as router:
        ada, ben, cat = (router.client(room, user) for user in ("ada", "ben", "cat"))
        for index in range(35):
            ada.say(index, to="ben")
        cat.pong()
        cat.cut()
        ada.say("news")
        cat.join()
        assert cat.returned["recovered"] is True and cat.hear() == "news"
        assert ben.hear(35) == list(range(35))


def test_acknowledgements_show_in_the_state(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    ada.say("one")
    assert ben.hear() == "one"
    ben.send(type="ack", position=ben.position)
    ben.pong()
    state = router.ask(f"webrtc/rooms/{room}/reconnection-state", "ben")[1]["state"]
    assert state["last_sequence"] == 1
    ben.send(type="ack", position="nonsense")
    ben.pong()


def test_data_of_any_json(router, room):
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    values = [
        None,
        True,
        0,
        -1.5,
        "",
        'a\u0000\u2028"\\\U0001f600',
        [],
        {},
        {"type": "messages", "from": "eve"},
        [[[1]]],
    ]
    for value in values:
        ada.say(value)
    assert ben.hear(len(values)) == values


# -------------------------------------------------------------------- who may


@pytest.mark.parametrize("access", [None, "", "wrong", 7, ["x"], TOKENS["ada"] + "x", TOKENS["ada"][:-1], "\ud800"])
def test_without_a_known_token_nobody_comes_in(router, room, access):
    client = Client(router, room, "ada").connect()
    client.send(type="join", access=access)
    assert client.closed() == 4401


def test_the_token_may_come_as_a_header(router, room):
    from websockets.sync.client import connect

    headers = {"Authorization": f"Bearer {TOKENS['ada']}"}
    with connect(router.socket(room), additional_headers=headers, proxy=None) as websocket:
        websocket.send('{"type":"join"}')
        joined = json.loads(websocket.recv(PATIENCE))
        assert (joined["type"], joined["user"], joined["room"]) == ("joined", "ada", room)


def test_the_user_comes_from_the_token_alone(router, room):
    ben = Client(router, room, "ben").join(user="ada", **{"from": "ada"})
    assert ben.find("joined")["user"] == "ben"
    ada = router.client(room, "ada")
    ben.send(type="message", data="x", user="ada", **{"from": "ada"})
    assert ada.listen(1)[0]["from"] == "ben"


def test_origins():
    with Router(ALLOWED_ORIGINS="https://one.example, https://two.example") as router:
        for origin in (None, router.url.rstrip("/"), "https://one.example", "https://two.example"):
            Client(router, "room", "ada", origin).join().close()
        for origin in ("https://evil.example", "null", "http://one.example", "https://one.example.evil.example", "x"):
            with pytest.raises(InvalidStatus) as caught:
                Client(router, "room", "ada", origin).connect()
            assert caught.value.response.status_code == 403
        path = "webrtc/rooms/room/reconnection-state"
        assert router.ask(path, "ada", Origin="https://evil.example")[0] == 403
        status, _, headers = router.ask(path, "ada", Origin="https://two.example")
        assert status == 200 and headers["Access-Control-Allow-Origin"] == "https://two.example"
        status, _, headers = router.ask(
            path, method="OPTIONS", Origin="https://one.example", Access_Control_Request_Method="GET"
        )
        assert status == 204 and "Authorization" in headers["Access-Control-Allow-Headers"]
        status, _, headers = router.ask(
            path, method="OPTIONS", Origin="https://evil.example", Access_Control_Request_Method="GET"
        )
        assert "Access-Control-Allow-Origin" not in headers


# ------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "x",
        "[]",
        "7",
        "null",
        '"join"',
        "{",
        '{"type":"join"',
        "[" * 100_000,
        b"\x00\xff",
        '{"a":NaN}',
        '{"a":1e999}',
    ]
    + ['{"type":"message","data":1}', '{"type":"join","position":7}', '{"type":"join","token":{}}', "9" * 10_000],
    ids=range(16),
)
def test_garbage_as_the_first_message(router, room, frame):
    client = Client(router, room, "ada").connect()
    if isinstance(frame, str) and frame.startswith('{"type"') and frame.endswith("}"):
        frame = frame[:-1] + f',"access":{json.dumps(client.access)}}}'
    client.websocket.send(frame)
    assert client.closed() in (4400, 4401)


@pytest.mark.parametrize(
    "frame", ["x", "[]", "[" * 100_000, b"\x00", "NaN", '{"type":"ack"}', '{"type":"ack","position":[]}']
)
def test_garbage_afterwards(router, room, frame):
    ada = router.client(room, "ada")
    ada.websocket.send(frame)
    assert ada.closed() == 4400
    ada.join()
    assert ada.returned["recovered"] is True


def test_messages_that_cannot_be_are_refused_one_by_one(router, room):
    ada = router.client(room, "ada")
    for frame, error in [
        ({"type": "nothing"}, "UNKNOWN_TYPE"),
        ({}, "UNKNOWN_TYPE"),
        ({"type": "message", "data": 1, "to": 7}, "MALFORMED"),
        ({"type": "message", "data": 1, "to": ""}, "INVALID_ARGUMENT"),
        ({"type": "message", "data": 1, "to": "a\nb"}, "INVALID_ARGUMENT"),
        ({"type": "message", "data": 1, "to": "x" * 300}, "INVALID_ARGUMENT"),
        ({"type": "message", "data": 1, "id": 7}, "MALFORMED"),
        ({"type": "message", "data": 1, "id": ""}, "MALFORMED"),
        ({"type": "message", "data": 1, "id": "x" * 65}, "MALFORMED"),
        ({"type": "message", "data": 1, "kind": "bomb"}, "MALFORMED"),
        ({"type": "message", "data": 1, "kind": ["offer"]}, "MALFORMED"),
        ({"type": "message", "data": 1, "negotiation": "1"}, "MALFORMED"),
        ({"type": "message", "data": 1, "negotiation": -1}, "INVALID_ARGUMENT"),
        ({"type": "message", "data": 1, "negotiation": 1 << 70}, "INVALID_ARGUMENT"),
        ({"type": "message", "data": "\ud800"}, "MALFORMED"),
        ({"type": "message", "data": "x" * 65536}, "TOO_LARGE"),
    ]:
        assert ada.refused(**frame)["error"] == error, frame
    ada.websocket.send('{"type":"message","data":1e999}')
    error = ada.wait(lambda: ada.find("error"), "an error")
    assert error["error"] == "MALFORMED"
    ada.others.remove(error)
    assert ada.say("fine")["sequence"] == 1


def test_a_frame_that_is_too_large_ends_the_connection(router, room):
    ada = router.client(room, "ada")
    ada.websocket.send("x" * 1_000_000)
    assert ada.closed() == 1009
    ada.join()
    assert ada.returned["recovered"] is True


@pytest.mark.parametrize("name", ["x" * 300, "a{b}", "a\nb", "\x7f"])
def test_rooms_that_cannot_be(router, name):
    client = Client(router, name, "ada").connect()
    client.send(type="join", access=client.access)
    assert client.closed() == 4400
    quoted = routers.quote(name, safe="")
    assert router.ask(f"webrtc/rooms/{quoted}/reconnection-state", "ada")[0] == 400


def test_one_that_says_nothing_is_let_go():
    with Router("--join-timeout", 0.2) as router:
        silent = Client(router, "room", "ada").connect()
        assert silent.closed() == 4400


def test_the_rate_of_a_user_is_limited():
    with Router("--rate", 5, "--burst", 10) as router:
        ada, ben = router.client("room", "ada"), router.client("room", "ben")
        for index in range(30):
            ada.send(type="message", data=index, id=str(index))
        error = ada.wait(lambda: ada.find("error"), "an error")
        assert error["error"] == "TOO_MANY" and 0 < error["retry_after"] < 1 and error["id"] is not None
        # Who does not stop is let go; others are not concerned.
        try:
            for index in range(100):
                ada.send(type="message", data=index)
        except ConnectionClosed:
            pass
        assert ada.closed() == 4429
        assert ben.say("still here")["type"] == "sent"
        status, body, headers = 200, None, None
        for _ in range(15):
            status, body, headers = router.ask("webrtc/rooms/room/reconnection-state", "ada")
        assert status == 429 and body["error"] == "TOO_MANY" and int(headers["Retry-After"]) >= 1


def test_a_client_that_does_not_read_is_let_go_and_comes_back():
    options = ["--queue-bytes", 200_000, "--rate", 1e6, "--burst", 1_000_000, "--window", 3000]
    with Router(*options) as router:
        ada = router.client("room", "ada")
        # It reads a few frames: what is sent piles up in the network's buffers, then in the router.
        ben = Client(router, "room", "ben", max_queue=4).join()
        ben.websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        count = 0

        def gone():
            nonlocal count
            for _ in range(50):
                ada.say("x" * 8000)
                count += 1
            return not router.ask("webrtc/rooms/room/reconnection-state", "ben")[1]["state"]["is_connected"]

        until(gone, "the router to let go of the client")
        ben.cut()
        ben.max_queue = None
        ben.join()
        assert ben.returned["recovered"] is True or ben.returned["reason"] in ("limit", "trimmed")
        ada.say("end")
        ben.wait(lambda: ben.heard and ben.heard[-1]["data"] == "end", "the last message")


def test_a_herd_is_told_to_come_again():
    with Router("--recoveries", 1, "--recovery-burst", 2) as router:
        clients = [router.client(f"room {index}", "ada") for index in range(6)]
        for client in clients:
            client.cut()
        told = 0
        for client in clients:
            client.connect()
            client.send(type="join", access=client.access, position=client.position, token=client.token)
            client.returned = None
            try:
                client.wait(lambda client=client: client.returned, "an answer")
            except Exception:
                assert client.retry_after > 0 and client.closed() == 1013
                told += 1
        assert told >= 3


# ------------------------------------------------------------------------- HTTP


def test_connection_quality_as_the_format_says(router, room):
    router.client(room, "ada")
    path = f"webrtc/rooms/{room}/connection-quality"
    measures = {"latency_ms": 150, "packet_loss_percent": 2.5, "jitter_ms": 30, "bandwidth_kbps": 5000}
    status, answer, headers = router.ask(path, "ada", measures, Content_Type="application/json")
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert set(answer) == {"quality", "metrics", "recommendations", "timestamp"}
    assert answer["quality"] == "fair" and answer["metrics"] == measures
    assert answer["recommendations"] and all(isinstance(sentence, str) for sentence in answer["recommendations"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["timestamp"])
    best = {"latency_ms": 10, "packet_loss_percent": 0, "jitter_ms": 1, "bandwidth_kbps": 9000}
    worst = {"latency_ms": 2000, "packet_loss_percent": 50, "jitter_ms": 500, "bandwidth_kbps": 10}
    assert router.ask(path, "ada", best)[1]["quality"] == "good"
    assert router.ask(path, "ada", worst)[1]["quality"] == "poor"
    state = router.ask(f"webrtc/rooms/{room}/reconnection-state", "ada")[1]
    assert state["state"]["connection_quality"] == "poor"


def test_reconnection_state_as_the_format_says(router, room):
    ada = router.client(room, "ada")
    ada.say("one")
    status, answer, _ = router.ask(f"webrtc/rooms/{room}/reconnection-state", "ada")
    assert status == 200 and set(answer) == {"room_id", "user_id", "state"}
    assert (answer["room_id"], answer["user_id"]) == (room, "ada")
    state = answer["state"]
    assert set(state) == {"last_sequence", "last_seen", "is_connected", "connection_quality"}
    assert state["is_connected"] is True and state["connection_quality"] == "unknown"
    assert isinstance(state["last_sequence"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", state["last_seen"])
    ada.cut()
    until(
        lambda: router.ask(f"webrtc/rooms/{room}/reconnection-state", "ada")[1]["state"]["is_connected"] is False,
        "the drop",
    )


def test_http_needs_a_token(router, room):
    router.client(room, "ada")
    for path, body in (
        (f"webrtc/rooms/{room}/connection-quality", {}),
        (f"webrtc/rooms/{room}/reconnection-state", None),
    ):
        for headers in ({}, {"token": "wrong"}, {"Authorization": TOKENS["ada"]}, {"Authorization": "Basic eDp5"}):
            status, answer, found = router.ask(path, body=body, **headers)
            assert status == 401 and answer["error"] == "UNAUTHORIZED" and found["WWW-Authenticate"] == "Bearer"
        assert router.ask(path, "ben", body)[0] == 404  # known, but not in this room


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 422),
        (b"x", 422),
        (b"[]", 422),
        (b"\xff", 422),
        (b"[" * 4000, 422),
        (b"x" * 5000, 413),
        ({"latency_ms": -1}, 422),
        ({"latency_ms": "10"}, 422),
        ({"latency_ms": True}, 422),
        ({"packet_loss_percent": 101}, 422),
        (b'{"jitter_ms":NaN}', 422),
        (b'{"jitter_ms":1e999}', 422),
        ({"jitter_ms": [1]}, 422),
        ({"unknown": 1}, 200),
        ({"latency_ms": None}, 200),
    ],
    ids=range(15),
)
def test_bodies_that_cannot_be(router, room, body, status):
    router.client(room, "ada")
    found, answer, _ = router.ask(f"webrtc/rooms/{room}/connection-quality", "ada", body)
    assert found == status, answer
    assert status == 200 or answer["error"]


def test_metrics(router, room):
    ada = router.client(room, "ada")
    ada.cut()
    ada.join()
    status, text, headers = router.ask("metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = text.splitlines()
    assert any(line.startswith("reconnect_router_connections ") for line in lines)
    # Every line is of the format, and every series is described.
    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .*|\w+(\{[^}]*\})? -?[0-9.e+-]+|\w+(\{[^}]*\})? (NaN|\+Inf)", line), (
            line
        )
    assert TOKENS["ada"] not in text and room not in text


def test_what_is_not_there(router):
    assert router.ask("nothing")[0] == 404
    assert router.ask("demo")[0] == 404
    assert router.ask("webrtc/rooms/a/connection-quality", "ada")[0] == 405
    assert router.ask("ping")[1] == "pong"
    status, page, headers = router.ask("")
    assert status == 200 and "script-src" not in page and "default-src 'self'" in headers["Content-Security-Policy"]


# -------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    "options, environment, words",
    [
        ([], {"ROUTER_TOKENS": ""}, "nobody could come in"),
        ([], {"ROUTER_TOKENS": "ada"}, "USER:TOKEN"),
        ([], {"ROUTER_TOKENS": "ada:short"}, "16 characters"),
        (["--demo", "--http", "0.0.0.0:0"], {}, "loopback"),
        (["--http", "nowhere"], {}, "HOST:PORT"),
        (["--rate", "0"], {}, "above 0"),
        (["--tokens", "/nonexistent"], {}, "--tokens"),
    ],
)
def test_what_the_command_line_refuses(options, environment, words):
    with pytest.raises(Exception, match=words):
        Router(*options, **environment)


def test_a_store_that_cannot_be(tmp_path):
    for store in ("nonsense:", f"sqlite:{tmp_path}/missing/folder/file"):
        with pytest.raises(Exception, match="INVALID_ARGUMENT|STORAGE"):
            Router("--store", store)


def test_an_orderly_end_drops_and_does_not_leave(tmp_path, room):
    store = f"sqlite:{tmp_path / 'rooms'}"
    with Router("--store", store) as router:
        ada, ben = router.client(room, "ada"), router.client(room, "ben")
        ada.say("before the deploy")
        ada.pong()
        assert router.stop() == 0
        assert ada.closed() == 1012
        assert not [line for line in router.lines() if "Traceback" in line or "Error" in line], router.lines()
    with Router("--store", store) as router:
        ben.position = None if ben.position is None else ben.position
        ben.join(router)
        assert ben.returned["recovered"] is True and ben.hear() == "before the deploy"
        ada.join(router)
        assert ada.returned["recovered"] is True and ada.returned["disconnect_duration"] >= 0


def test_kill_9_with_sqlite_loses_nothing_that_had_a_receipt(tmp_path, room):
    store = f"sqlite:{tmp_path / 'rooms'}"
    with Router("--store", store, "--rate", 10000, "--burst", 10000) as router:
        ada, ben = router.client(room, "ada"), router.client(room, "ben")
        ben.cut()
        said = []

        def talk():
            try:
                while True:
                    said.append(ada.say(len(said))["sequence"])
            except Exception:
                pass  # its router is gone

        talker = threading.Thread(target=talk)
        talker.start()
        until(lambda: len(said) >= 20, "messages")
        router.kill()
        talker.join(PATIENCE)
    with Router("--store", store) as router:
        ben.join(router)
        assert ben.returned["recovered"] is True, ben.returned
        count = ben.returned["missed_message_count"]
        assert count >= len(said)  # one more may have been stored without its receipt
        assert ben.hear(count) == list(range(count))
        ada.join(router)
        assert ada.returned["recovered"] is True
        # Nobody told the store that they had gone: they have been replaced.
        ada.say("after")
        assert ben.hear() == "after"


def test_nothing_is_left_after_many_clients(router):
    rooms = [f"many {index}" for index in range(20)]
    before = router.ask("metrics")[1]
    clients = [router.client(name, user) for name in rooms for user in ("ada", "ben")]
    for client in clients[::2]:
        client.cut()
    for client in clients[1::2]:
        client.leave()
    gauge = re.compile(r"^reconnect_router_connections (\d+)$", re.M)
    until(
        lambda: gauge.search(router.ask("metrics")[1]).group(1) <= gauge.search(before).group(1),
        "the connections to be gone",
    )


def test_speed_of_a_return_over_the_network(router, room):
    """Not timed strictly: a return with 50 messages is one round trip, not fifty pauses of 10 ms (500 ms)."""
    ada, ben = router.client(room, "ada"), router.client(room, "ben")
    position = ben.position
    ben.cut()
    for index in range(50):
        ada.say(index)
    best = 10.0
    for _ in range(5):
        ben.position = position
        begun = time.monotonic()
        ben.join()
        assert ben.hear(50) == list(range(50))
        best = min(best, time.monotonic() - begun)
        ben.cut()
    assert best < 0.5
