"""Words that a test leaves for the report."""

# The name of what a test records of what it saw.
EVIDENCE = "evidence"

# How a skip begins that is said in the report as what it is. Any other skip says nothing of a line.
NOT_APPLICABLE = "not applicable: "
NOT_TESTABLE = "not testable here: "
