"""What the tests of all lessons' checkers ask: a message for each mistake, and an answer to a stub and to an error."""


def expect_own_message(check, wrong, name, words):
    """The mistake `wrong[name][words]` is refused with its words, and with those of no other."""
    result = getattr(check, name)(wrong[name][words])
    assert result.ok is False
    assert words in result.message, result.message
    assert sum(other in result.message for other in wrong[name]) == 1, "one message for two mistakes"


def expect_answer_to_stub(checker):
    """A function without an answer is not solved yet."""
    for stub in (lambda *args: None, lambda *args: ...):
        result = checker(stub)
        assert result.ok is None
        assert "is a `return` missing?" in repr(result)
