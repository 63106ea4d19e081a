import urllib3

from trainvitals.app.demo.inbox import Inbox, page

MESSAGE = {
    "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "NaN in <b>fc1</b>"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "loss &lt;script&gt; seen"}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "nonfinite-loss"}]},
        {
            "type": "actions",
            "elements": [
                {"type": "button", "text": {"text": "Open"}, "url": "javascript:alert(1)"}
            ],
        },
    ]
}


def test_a_message_is_shown_as_text_and_never_as_markup():
    shown = page([MESSAGE])
    assert "NaN in &lt;b&gt;fc1&lt;/b&gt;" in shown
    assert "&lt;script&gt;" in shown and "<script" not in shown
    assert "javascript:" not in shown


def test_the_inbox_takes_a_message_and_shows_it():
    with Inbox() as inbox:
        assert urllib3.request("POST", f"{inbox.url}/slack", json=MESSAGE).status == 200
        shown = urllib3.request("GET", inbox.url).data.decode()
    assert "nonfinite-loss" in shown
    assert len(inbox.messages) == 1


def test_an_empty_inbox_says_so():
    assert "No alert yet" in page([])
