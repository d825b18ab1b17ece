package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestReadPayments(t *testing.T) {
	t.Parallel()
	const good = `{"key":"k","account":"a","amount_cents":1}`
	long := `{"key":"k","account":"a","amount_cents":1,"memo":"` + strings.Repeat("x", maxLine) + `"}`
	for name, tc := range map[string]struct {
		in       string
		payments int
		bad      map[int]string // line → what it says
	}{
		"nothing":                {in: ""},
		"blank lines":            {in: "\n \n\t\r\n"},
		"no newline at the end":  {in: good, payments: 1},
		"Windows lines and mark": {in: "\ufeff" + good + "\r\n" + good + "\r\n", payments: 2},
		"not JSON":               {in: good + "\nnonsense\n" + good, payments: 2, bad: map[int]string{2: "not a JSON object"}},
		"an array":               {in: "[1]", bad: map[int]string{1: "not a JSON object"}},
		"null":                   {in: "null", bad: map[int]string{1: `"key" is missing`}},
		"two objects":            {in: good + good, bad: map[int]string{1: "not a JSON object"}},
		"cut off":                {in: good[:20] + "\n" + good, payments: 1, bad: map[int]string{1: "not a JSON object"}},
		"not UTF-8":              {in: "{\"key\":\"\xff\",\"account\":\"a\",\"amount_cents\":1}", bad: map[int]string{1: "not UTF-8"}},
		"no key":                 {in: `{"account":"a","amount_cents":1}`, bad: map[int]string{1: `"key" is missing`}},
		"key with a space":       {in: `{"key":"a b","account":"a","amount_cents":1}`, bad: map[int]string{1: "visible ASCII"}},
		"key with a newline":     {in: `{"key":"a\nb","account":"a","amount_cents":1}`, bad: map[int]string{1: "visible ASCII"}},
		"key too long":           {in: strings.Replace(good, `"k"`, `"`+strings.Repeat("k", 241)+`"`, 1), bad: map[int]string{1: "241 bytes, at most 240"}},
		"no account":             {in: `{"key":"k","amount_cents":1}`, bad: map[int]string{1: `"account" is missing`}},
		"no amount":              {in: `{"key":"k","account":"a"}`, bad: map[int]string{1: `"amount_cents" is missing`}},
		"negative amount":        {in: `{"key":"k","account":"a","amount_cents":-5}`, bad: map[int]string{1: "out of range: -5"}},
		"amount too large":       {in: `{"key":"k","account":"a","amount_cents":10000000001}`, bad: map[int]string{1: "out of range"}},
		"fraction of a cent":     {in: `{"key":"k","account":"a","amount_cents":1.5}`, bad: map[int]string{1: `"amount_cents" cannot be a number 1.5`}},
		"amount as text":         {in: `{"key":"k","account":"a","amount_cents":"1"}`, bad: map[int]string{1: `"amount_cents" cannot be a string`}},
		"too long, then good":    {in: good + "\n" + long + "\n" + good, payments: 2, bad: map[int]string{2: "longer than"}},
		"too long at the end":    {in: good + "\n" + long, payments: 1, bad: map[int]string{2: "longer than"}},
		"bad lines far apart":    {in: "x\n" + strings.Repeat(good+"\n", 500) + "y\n", payments: 500, bad: map[int]string{1: "JSON", 502: "JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payments, bad, err := readPayments(strings.NewReader(tc.in))
			require.NoError(t, err)
			require.Len(t, payments, tc.payments)
			require.Len(t, bad, len(tc.bad))
			for _, b := range bad {
				require.Contains(t, tc.bad, b.line)
				require.ErrorContains(t, b.err, tc.bad[b.line])
			}
		})
	}
}

func TestReadPaymentsReadError(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	in := io.MultiReader(strings.NewReader(`{"key":"k","account":"a","amount_cents":1}`+"\n"), iotest.ErrReader(broken))
	payments, _, err := readPayments(in)
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "line 2")
	require.Len(t, payments, 1)
}

func TestSampleFile(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/payments.jsonl")
	require.NoError(t, err)
	defer f.Close()
	payments, bad, err := readPayments(f)
	require.NoError(t, err)
	var lines []int
	for _, b := range bad {
		lines = append(lines, b.line)
	}
	require.Equal(t, []int{4, 5, 6, 7}, lines)

	all := orders(payments)
	require.Equal(t, []order{
		{payment{"order-1001", "alice", 1999}, []payment{{"order-1001", "alice", 1999}}},
		{payment{"order-1002", "bob", 250}, []payment{{"order-1002", "bob", 2500}}},
		{payment{"order-1006", "Ünal & Söhne", 10_000_000_000}, nil},
	}, all)
}

func TestWritePaymentsRoundTrip(t *testing.T) {
	t.Parallel()
	want := append(generate(50, 3), payment{`<&>"\`, "Ünal & Söhne \u2028", maxCents})
	var buf bytes.Buffer
	require.NoError(t, writePayments(&buf, want))
	got, bad, err := readPayments(&buf)
	require.NoError(t, err)
	require.Empty(t, bad)
	require.Equal(t, want, got)
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	payments := generate(1000, 7)
	require.Equal(t, payments, generate(1000, 7), "a seed gives the same payments")
	require.Equal(t, payments[:10], generate(10, 7), "and more of them only adds to the end")
	require.NotEqual(t, payments, generate(1000, 8))
	keys := make(map[string]bool)
	for _, p := range payments {
		require.NoError(t, p.check())
		keys[p.Key] = true
	}
	require.Len(t, keys, 1000)
	require.Equal(t, payment{"pay-1-000001", "account-11", 4456}, generate(1, 1)[0], "also in another release")
}

func TestMoney(t *testing.T) {
	t.Parallel()
	for cents, want := range map[int64]string{0: "0.00", 1: "0.01", -1: "-0.01", 100: "1.00", -12345: "-123.45", 99: "0.99"} {
		require.Equal(t, want, money(cents))
	}
}
