"""What the tests of all lessons' checkers ask: a message for each mistake, and an answer to a stub and to an error."""


def with_declared(check, others):
    """By exercise: the mistakes that its checker declares, and other wrong answers, each by words of its message."""
    return {name: {**getattr(check, name.upper()), **more} for name, more in others.items()}


def pairs(wrong):
    """Exercise and words of each wrong answer, to parametrise a test."""
    return [(name, words) for name in wrong for words in wrong[name]]


def expect_own_message(check, wrong, name, words, *args):
    """The mistake `wrong[name][words]` is refused with its words, and with those of no other."""
    result = getattr(check, name)(wrong[name][words], *args)
    assert result.ok is False
    found = [other for other in wrong[name] if other.lower() in result.message.lower()]
    assert found == [words], result.message


def expect_answer_to_stub(checker):
    """A function without an answer is not solved yet."""
    for stub in (lambda *args: None, lambda *args: ...):
        result = checker(stub)
        assert result.ok is None
        assert "is a `return` missing?" in repr(result)
