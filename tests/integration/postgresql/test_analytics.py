"""Counting, reporting and cleaning up on PostgreSQL, where transactions really run at the same time."""

from __future__ import annotations

from tests.integration.test_analytics import (  # noqa: F401  (the same tests, with this folder's ledger)
    test_a_count_that_got_lost_is_asked_for_again,
    test_batches_at_the_same_time_neither_lose_nor_double,
    test_figures_of_a_stream,
    test_sales_and_refunds_count_once_in_either_order,
    test_what_comes_while_a_count_runs_is_counted_by_the_next,
)
from tests.integration.test_daily_report import (  # noqa: F401
    mailing,
    server,
    test_a_day_is_as_it_was_after_its_streams_were_cleaned_up,
    test_a_file_each_that_no_spreadsheet_computes_with,
    test_figures_are_those_of_the_day_there,
)
from tests.integration.test_retention import (  # noqa: F401
    test_figures_and_sales_stay_and_no_more_viewers_come,
    test_old_ones_go_and_others_stay,
    test_one_that_is_made_again_meanwhile_stays,
)
