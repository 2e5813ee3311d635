"""Which books there are, by the names of their files."""

NOVELS = {
    "sensesensibility": "Sense and Sensibility",
    "prideprejudice": "Pride and Prejudice",
    "mansfieldpark": "Mansfield Park",
    "emma": "Emma",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
}
# File and title. Left out: Cymbeline, whose acts III and IV are missing in the package; the spellings of the first
# folio (*_gut_f), which are the same plays again; the poems, which are short.
PLAYS = {
    "alls_well_that_ends_well": "All's Well That Ends Well",
    "antony_and_cleopatra": "Antony and Cleopatra",
    "as_you_like_it": "As You Like It",
    "comedy_of_errors": "The Comedy of Errors",
    "coriolanus": "Coriolanus",
    "hamlet": "Hamlet",
    "henry_iv_part_1": "Henry IV, part 1",
    "henry_iv_part_2": "Henry IV, part 2",
    "henry_v": "Henry V",
    "henry_vi_part_1": "Henry VI, part 1",
    "henry_vi_part_2": "Henry VI, part 2",
    "henry_vi_part_3": "Henry VI, part 3",
    "henry_viii": "Henry VIII",
    "john": "King John",
    "julius_caesar": "Julius Caesar",
    "lear": "King Lear",
    "loves_labours_lost": "Love's Labour's Lost",
    "macbeth": "Macbeth",
    "measure_for_measure": "Measure for Measure",
    "merchant_of_venice": "The Merchant of Venice",
    "merry_wives_of_windsor": "The Merry Wives of Windsor",
    "midsummer_nights_dream": "A Midsummer Night's Dream",
    "much_ado_about_nothing": "Much Ado about Nothing",
    "othello": "Othello",
    "pericles": "Pericles",
    "richard_ii": "Richard II",
    "richard_iii": "Richard III",
    "romeo_and_juliet": "Romeo and Juliet",
    "taming_of_the_shrew": "The Taming of the Shrew",
    "tempest": "The Tempest",
    "timon_of_athens": "Timon of Athens",
    "tragedy_of_titus_andronicus": "Titus Andronicus",
    "troilus_and_cressida": "Troilus and Cressida",
    "twelfth_night": "Twelfth Night",
    "two_gentlemen_of_verona": "The Two Gentlemen of Verona",
    "winters_tale": "The Winter's Tale",
}
# Plays that share persons, Falstaff for one, who would be known in a second split.
GROUPS = {
    "The Wars of the Roses": (
        "Richard II", "Henry IV, part 1", "Henry IV, part 2", "The Merry Wives of Windsor", "Henry V",
        "Henry VI, part 1", "Henry VI, part 2", "Henry VI, part 3", "Richard III",
    ),
    "Caesar and Antony": ("Julius Caesar", "Antony and Cleopatra"),
}  # fmt: skip
