"""Phone numbers: E.164, of phones that can get text messages, and shown to nobody whole."""

from __future__ import annotations

from typing import Final

from control.errors import PhoneInvalid

_LONGEST: Final = 40
_SHOWN_HEAD: Final = 5
_SHOWN_TAIL: Final = 3
_HIDDEN_AT_LEAST: Final = 5


def normalise(text: str, region: str | None = None) -> str:
    """`text` in E.164 (`+886912345678`); one without a country code is of `region` (ISO 3166-1). Raises PhoneInvalid,
    whose message holds nothing of the number."""
    import phonenumbers  # its tables take longer to load than most commands that never see a number

    # Digits of other scripts are another way to write the same number; letters of "vanity numbers" are not.
    if len(text) > _LONGEST or any(one.isalpha() for one in text):
        raise PhoneInvalid(reason="it is not a number")
    if region is not None and region.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise PhoneInvalid(reason="there is no such region")
    try:
        number = phonenumbers.parse(text, region.upper() if region else None)
    except phonenumbers.NumberParseException as error:
        wanting = error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
        reason = "its country code is missing or unknown" if wanting else "it is not a number"
        raise PhoneInvalid(reason=reason) from None
    if number.extension or not phonenumbers.is_valid_number(number):
        raise PhoneInvalid(reason="there is no such number")
    mobile = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)
    if phonenumbers.number_type(number) not in mobile:
        raise PhoneInvalid(reason="it is not a mobile phone's")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def masked(e164: str) -> str:
    """`+8869•••••678`: enough for its owner to know it."""
    head = max(0, min(_SHOWN_HEAD, len(e164) - _SHOWN_TAIL - _HIDDEN_AT_LEAST))
    tail = e164[-_SHOWN_TAIL:] if len(e164) > _SHOWN_TAIL + _HIDDEN_AT_LEAST else ""
    return f"{e164[:head]}{'•' * (len(e164) - head - len(tail))}{tail}"
