package jcs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The y_ cases of JSONTestSuite: what every parser must accept. Names and inputs are
// those of its test_parsing, commit 1ef36fa of 2024-11-22, github.com/nst/JSONTestSuite,
// here and below. The canonical forms and the reasons are ours. A name that an object has twice is JSON
// and no I-JSON, and readers differ in which of the two counts. It is refused.
func TestJSONTestSuiteAccepted(t *testing.T) {
	t.Parallel()
	cases := []written{
		{"y_array_arraysWithSpaces", "[[]   ]", "[[]]"},
		{"y_array_empty-string", `[""]`, `[""]`},
		{"y_array_empty", "[]", "[]"},
		{"y_array_ending_with_newline", `["a"]`, `["a"]`},
		{"y_array_false", "[false]", "[false]"},
		{"y_array_heterogeneous", `[null, 1, "1", {}]`, `[null,1,"1",{}]`},
		{"y_array_null", "[null]", "[null]"},
		{"y_array_with_1_and_newline", "[1\n]", "[1]"},
		{"y_array_with_leading_space", " [1]", "[1]"},
		{"y_array_with_several_null", "[1,null,null,null,2]", "[1,null,null,null,2]"},
		{"y_array_with_trailing_space", "[2] ", "[2]"},
		{"y_number", "[123e65]", "[1.23e+67]"},
		{"y_number_0e+1", "[0e+1]", "[0]"},
		{"y_number_0e1", "[0e1]", "[0]"},
		{"y_number_after_space", "[ 4]", "[4]"},
		{"y_number_double_close_to_zero", "[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]\n", "[-1e-78]"},
		{"y_number_int_with_exp", "[20e1]", "[200]"},
		{"y_number_minus_zero", "[-0]", "[0]"},
		{"y_number_negative_int", "[-123]", "[-123]"},
		{"y_number_negative_one", "[-1]", "[-1]"},
		{"y_number_negative_zero", "[-0]", "[0]"},
		{"y_number_real_capital_e", "[1E22]", "[1e+22]"},
		{"y_number_real_capital_e_neg_exp", "[1E-2]", "[0.01]"},
		{"y_number_real_capital_e_pos_exp", "[1E+2]", "[100]"},
		{"y_number_real_exponent", "[123e45]", "[1.23e+47]"},
		{"y_number_real_fraction_exponent", "[123.456e78]", "[1.23456e+80]"},
		{"y_number_real_neg_exp", "[1e-2]", "[0.01]"},
		{"y_number_real_pos_exponent", "[1e+2]", "[100]"},
		{"y_number_simple_int", "[123]", "[123]"},
		{"y_number_simple_real", "[123.456789]", "[123.456789]"},
		{"y_object", `{"asd":"sdf", "dfg":"fgh"}`, `{"asd":"sdf","dfg":"fgh"}`},
		{"y_object_basic", `{"asd":"sdf"}`, `{"asd":"sdf"}`},
		{"y_object_empty", "{}", "{}"},
		{"y_object_empty_key", `{"":0}`, `{"":0}`},
		{"y_object_escaped_null_in_key", `{"foo\u0000bar": 42}`, `{"foo\u0000bar":42}`},
		{"y_object_extreme_numbers", `{ "min": -1.0e+28, "max": 1.0e+28 }`, `{"max":1e+28,"min":-1e+28}`},
		{"y_object_long_strings", `{"x":[{"id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}], "id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`, `{"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","x":[{"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}]}`},
		{"y_object_simple", `{"a":[]}`, `{"a":[]}`},
		{"y_object_string_unicode", `{"title":"\u041f\u043e\u043b\u0442\u043e\u0440\u0430 \u0417\u0435\u043c\u043b\u0435\u043a\u043e\u043f\u0430" }`, "{\"title\":\"\u041f\u043e\u043b\u0442\u043e\u0440\u0430 \u0417\u0435\u043c\u043b\u0435\u043a\u043e\u043f\u0430\"}"},
		{"y_object_with_newlines", "{\n\"a\": \"b\"\n}", `{"a":"b"}`},
		{"y_string_1_2_3_bytes_UTF-8_sequences", `["\u0060\u012a\u12AB"]`, "[\"`\u012a\u12ab\"]"},
		{"y_string_accepted_surrogate_pair", `["\uD801\udc37"]`, "[\"\U00010437\"]"},
		{"y_string_accepted_surrogate_pairs", `["\ud83d\ude39\ud83d\udc8d"]`, "[\"\U0001f639\U0001f48d\"]"},
		{"y_string_allowed_escapes", `["\"\\\/\b\f\n\r\t"]`, `["\"\\/\b\f\n\r\t"]`},
		{"y_string_backslash_and_u_escaped_zero", `["\\u0000"]`, `["\\u0000"]`},
		{"y_string_backslash_doublequotes", `["\""]`, `["\""]`},
		{"y_string_comments", `["a/*b*/c/*d//e"]`, `["a/*b*/c/*d//e"]`},
		{"y_string_double_escape_a", `["\\a"]`, `["\\a"]`},
		{"y_string_double_escape_n", `["\\n"]`, `["\\n"]`},
		{"y_string_escaped_control_character", `["\u0012"]`, `["\u0012"]`},
		{"y_string_escaped_noncharacter", `["\uFFFF"]`, "[\"\uffff\"]"},
		{"y_string_in_array", `["asd"]`, `["asd"]`},
		{"y_string_in_array_with_leading_space", `[ "asd"]`, `["asd"]`},
		{"y_string_last_surrogates_1_and_2", `["\uDBFF\uDFFF"]`, "[\"\U0010ffff\"]"},
		{"y_string_nbsp_uescaped", `["new\u00A0line"]`, "[\"new\u00a0line\"]"},
		{"y_string_nonCharacterInUTF-8_U+10FFFF", "[\"\U0010ffff\"]", "[\"\U0010ffff\"]"},
		{"y_string_nonCharacterInUTF-8_U+FFFF", "[\"\uffff\"]", "[\"\uffff\"]"},
		{"y_string_null_escape", `["\u0000"]`, `["\u0000"]`},
		{"y_string_one-byte-utf-8", `["\u002c"]`, `[","]`},
		{"y_string_pi", "[\"\u03c0\"]", "[\"\u03c0\"]"},
		{"y_string_reservedCharacterInUTF-8_U+1BFFF", "[\"\U0001bfff\"]", "[\"\U0001bfff\"]"},
		{"y_string_simple_ascii", `["asd "]`, `["asd "]`},
		{"y_string_space", `" "`, `" "`},
		{"y_string_surrogates_U+1D11E_MUSICAL_SYMBOL_G_CLEF", `["\uD834\uDd1e"]`, "[\"\U0001d11e\"]"},
		{"y_string_three-byte-utf-8", `["\u0821"]`, "[\"\u0821\"]"},
		{"y_string_two-byte-utf-8", `["\u0123"]`, "[\"\u0123\"]"},
		{"y_string_u+2028_line_sep", "[\"\u2028\"]", "[\"\u2028\"]"},
		{"y_string_u+2029_par_sep", "[\"\u2029\"]", "[\"\u2029\"]"},
		{"y_string_uEscape", `["\u0061\u30af\u30EA\u30b9"]`, "[\"a\u30af\u30ea\u30b9\"]"},
		{"y_string_uescaped_newline", `["new\u000Aline"]`, `["new\nline"]`},
		{"y_string_unescaped_char_delete", "[\"\x7f\"]", "[\"\x7f\"]"},
		{"y_string_unicode", `["\uA66D"]`, "[\"\ua66d\"]"},
		{"y_string_unicodeEscapedBackslash", `["\u005C"]`, `["\\"]`},
		{"y_string_unicode_2", "[\"\u2342\u3234\u2342\"]", "[\"\u2342\u3234\u2342\"]"},
		{"y_string_unicode_U+10FFFE_nonchar", `["\uDBFF\uDFFE"]`, "[\"\U0010fffe\"]"},
		{"y_string_unicode_U+1FFFE_nonchar", `["\uD83F\uDFFE"]`, "[\"\U0001fffe\"]"},
		{"y_string_unicode_U+200B_ZERO_WIDTH_SPACE", `["\u200B"]`, "[\"\u200b\"]"},
		{"y_string_unicode_U+2064_invisible_plus", `["\u2064"]`, "[\"\u2064\"]"},
		{"y_string_unicode_U+FDD0_nonchar", `["\uFDD0"]`, "[\"\ufdd0\"]"},
		{"y_string_unicode_U+FFFE_nonchar", `["\uFFFE"]`, "[\"\ufffe\"]"},
		{"y_string_unicode_escaped_double_quote", `["\u0022"]`, `["\""]`},
		{"y_string_utf8", "[\"\u20ac\U0001d11e\"]", "[\"\u20ac\U0001d11e\"]"},
		{"y_string_with_del_character", "[\"a\x7fa\"]", "[\"a\x7fa\"]"},
		{"y_structure_lonely_false", "false", "false"},
		{"y_structure_lonely_int", "42", "42"},
		{"y_structure_lonely_negative_real", "-0.1", "-0.1"},
		{"y_structure_lonely_null", "null", "null"},
		{"y_structure_lonely_string", `"asd"`, `"asd"`},
		{"y_structure_lonely_true", "true", "true"},
		{"y_structure_string_empty", `""`, `""`},
		{"y_structure_trailing_newline", "[\"a\"]\n", `["a"]`},
		{"y_structure_true_in_array", "[true]", "[true]"},
		{"y_structure_whitespace_array", " [] ", "[]"},
	}
	twice := []refusal{
		{"y_object_duplicated_key", `{"a":"b","a":"c"}`, 9, "a name that the object has already"},
		{"y_object_duplicated_key_and_value", `{"a":"b","a":"b"}`, 9, "a name that the object has already"},
	}
	assert.Len(t, cases, 95-len(twice))
	checkWritten(t, cases)
	checkRefused(t, twice)
}

// The i_ cases of JSONTestSuite: what a parser may accept. Numbers of any precision are, with their
// exact value; broken encodings and lone surrogates are not.
func TestJSONTestSuiteImplementationDefined(t *testing.T) {
	t.Parallel()
	accepted := []written{
		{"i_number_double_huge_neg_exp", "[123.456e-789]", "[1.23456e-787]"},
		{"i_number_neg_int_huge_exp", "[-1e+9999]", "[-1e+9999]"},
		{"i_number_pos_double_huge_exp", "[1.5e+9999]", "[1.5e+9999]"},
		{"i_number_real_neg_overflow", "[-123123e100000]", "[-1.23123e+100005]"},
		{"i_number_real_pos_overflow", "[123123e100000]", "[1.23123e+100005]"},
		{"i_number_real_underflow", "[123e-10000000]", "[1.23e-9999998]"},
		{"i_number_too_big_neg_int", "[-123123123123123123123123123123]", "[-1.23123123123123123123123123123e+29]"},
		{"i_number_too_big_pos_int", "[100000000000000000000]", "[100000000000000000000]"},
		{"i_number_very_big_negative_int", "[-237462374673276894279832749832423479823246327846]", "[-2.37462374673276894279832749832423479823246327846e+47]"},
		{"i_structure_500_nested_arrays", strings.Repeat("[", 500) + strings.Repeat("]", 500), strings.Repeat("[", 500) + strings.Repeat("]", 500)},
	}
	refused := []refusal{
		{"i_number_huge_exp", "[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999969999999006]", 1, "a number with an exponent beyond 999999999"},
		{"i_object_key_lone_2nd_surrogate", `{"\uDFAA":0}`, 2, "a lone surrogate, which is no character"},
		{"i_string_1st_surrogate_but_2nd_missing", `["\uDADA"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_1st_valid_surrogate_2nd_invalid", `["\uD888\u1234"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_UTF-16LE_with_BOM", "\xff\xfe[\x00\"\x00\xe9\x00\"\x00]\x00", 0, "invalid UTF-8"},
		{"i_string_UTF-8_invalid_sequence", "[\"\xe6\x97\xa5\xd1\x88\xfa\"]", 7, "invalid UTF-8"},
		{"i_string_UTF8_surrogate_U+D800", "[\"\xed\xa0\x80\"]", 2, "invalid UTF-8"},
		{"i_string_incomplete_surrogate_and_escape_valid", `["\uD800\n"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_incomplete_surrogate_pair", `["\uDd1ea"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_incomplete_surrogates_escape_valid", `["\uD800\uD800\n"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_invalid_lonely_surrogate", `["\ud800"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_invalid_surrogate", `["\ud800abc"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_invalid_utf-8", "[\"\xff\"]", 2, "invalid UTF-8"},
		{"i_string_inverted_surrogates_U+1D11E", `["\uDd1e\uD834"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_iso_latin_1", "[\"\xe9\"]", 2, "invalid UTF-8"},
		{"i_string_lone_second_surrogate", `["\uDFAA"]`, 2, "a lone surrogate, which is no character"},
		{"i_string_lone_utf8_continuation_byte", "[\"\x81\"]", 2, "invalid UTF-8"},
		{"i_string_not_in_unicode_range", "[\"\xf4\xbf\xbf\xbf\"]", 2, "invalid UTF-8"},
		{"i_string_overlong_sequence_2_bytes", "[\"\xc0\xaf\"]", 2, "invalid UTF-8"},
		{"i_string_overlong_sequence_6_bytes", "[\"\xfc\x83\xbf\xbf\xbf\xbf\"]", 2, "invalid UTF-8"},
		{"i_string_overlong_sequence_6_bytes_null", "[\"\xfc\x80\x80\x80\x80\x80\"]", 2, "invalid UTF-8"},
		{"i_string_truncated-utf-8", "[\"\xe0\xff\"]", 2, "invalid UTF-8"},
		{"i_string_utf16BE_no_BOM", "\x00[\x00\"\x00\xe9\x00\"\x00]", 5, "invalid UTF-8"},
		{"i_string_utf16LE_no_BOM", "[\x00\"\x00\xe9\x00\"\x00]\x00", 4, "invalid UTF-8"},
		{"i_structure_UTF-8_BOM_empty_object", "\ufeff{}", 0, "something else instead of a value"},
	}
	assert.Equal(t, 35, len(accepted)+len(refused))
	checkWritten(t, accepted)
	checkRefused(t, refused)
}

// The cases of JSONTestSuite in test_transform: what parsers accept and change. Nothing is changed here:
// numbers keep their value, characters are not composed, and what is ambiguous is
// refused.
func TestJSONTestSuiteTransform(t *testing.T) {
	t.Parallel()
	accepted := []written{
		{"number_-9223372036854775808", "[-9223372036854775808]\n", "[-9223372036854775808]"},
		{"number_-9223372036854775809", "[-9223372036854775809]\n", "[-9223372036854775809]"},
		{"number_1.0", "[1.0]\n", "[1]"},
		{"number_1.000000000000000005", "[1.000000000000000005]\n", "[1.000000000000000005]"},
		{"number_1000000000000000", "[1000000000000000]\n", "[1000000000000000]"},
		{"number_10000000000000000999", "[10000000000000000999]\n", "[10000000000000000999]"},
		{"number_1e-999", "[1E-999]\n", "[1e-999]"},
		{"number_1e6", "[1E6]\n", "[1000000]"},
		{"number_9223372036854775807", "[9223372036854775807]\n", "[9223372036854775807]"},
		{"number_9223372036854775808", "[9223372036854775808]\n", "[9223372036854775808]"},
		{"object_key_nfc_nfd", "{\"\u00e9\":\"NFC\",\"e\u0301\":\"NFD\"}", "{\"e\u0301\":\"NFD\",\"\u00e9\":\"NFC\"}"},
		{"object_key_nfd_nfc", "{\"e\u0301\":\"NFD\",\"\u00e9\":\"NFC\"}", "{\"e\u0301\":\"NFD\",\"\u00e9\":\"NFC\"}"},
		{"string_with_escaped_NULL", `["A\u0000B"]`, `["A\u0000B"]`},
	}
	refused := []refusal{
		{"object_same_key_different_values", `{"a":1,"a":2}`, 7, "a name that the object has already"},
		{"object_same_key_same_value", `{"a":1,"a":1}`, 7, "a name that the object has already"},
		{"object_same_key_unclear_values", "{\"a\":0, \"a\":-0}\n", 8, "a name that the object has already"},
		{"string_1_escaped_invalid_codepoint", `["\uD800"]`, 2, "a lone surrogate, which is no character"},
		{"string_1_invalid_codepoint", "[\"\xed\xa0\x80\"]", 2, "invalid UTF-8"},
		{"string_2_escaped_invalid_codepoints", `["\uD800\uD800"]`, 2, "a lone surrogate, which is no character"},
		{"string_2_invalid_codepoints", "[\"\xed\xa0\x80\xed\xa0\x80\"]", 2, "invalid UTF-8"},
		{"string_3_escaped_invalid_codepoints", `["\uD800\uD800\uD800"]`, 2, "a lone surrogate, which is no character"},
		{"string_3_invalid_codepoints", "[\"\xed\xa0\x80\xed\xa0\x80\xed\xa0\x80\"]", 2, "invalid UTF-8"},
	}
	assert.Equal(t, 22, len(accepted)+len(refused))
	checkWritten(t, accepted)
	checkRefused(t, refused)
}
