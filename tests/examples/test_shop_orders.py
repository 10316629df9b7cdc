"""The tests that users copy are run with ours."""

from examples.shop.test_orders import (
    test_an_order_gets_its_receipt_whatever_replies_are_lost,
    test_an_order_is_all_or_nothing_whatever_goes_wrong,
    test_an_order_survives_a_crash_at_any_point,
    test_each_service_does_what_it_is_asked_twice_once,
    test_where_no_carrier_goes_the_money_comes_back,
)

__all__ = [
    "test_an_order_gets_its_receipt_whatever_replies_are_lost",
    "test_an_order_is_all_or_nothing_whatever_goes_wrong",
    "test_an_order_survives_a_crash_at_any_point",
    "test_each_service_does_what_it_is_asked_twice_once",
    "test_where_no_carrier_goes_the_money_comes_back",
]
