"""The races, and what locks rows of many, on PostgreSQL."""

from tests.integration.test_otp_races import *  # noqa: F403
from tests.unit.test_otp import (  # noqa: F401  (the same tests, with this folder's ledger)
    test_a_code_is_right_once,
    test_a_message_lost_with_its_bus_is_sent_once_more_with_another_code,
    test_what_is_over_loses_its_number_and_is_forgotten_after_a_day,
)
