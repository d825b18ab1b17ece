package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxLine bounds a line of the input, so that a file that is not JSON lines
// cannot fill the memory.
const maxLine = 64 << 10

// badLine is a line of the input that was skipped, and why.
type badLine struct {
	line int // from 1
	err  error
}

// readPayments reads JSON lines. Blank lines are passed over, bad ones reported
// with their number, and reading goes on after both. err is of reading itself.
func readPayments(r io.Reader) (payments []payment, bad []badLine, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, tooLong, readErr := readLine(in)
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // some editors begin a file with it
		}
		line = bytes.TrimSpace(line)
		if tooLong {
			bad = append(bad, badLine{n, fmt.Errorf("longer than %d bytes", maxLine)})
		} else if len(line) > 0 {
			p, err := parsePayment(line)
			if err != nil {
				bad = append(bad, badLine{n, err})
			} else {
				payments = append(payments, p)
			}
		}
		if readErr == io.EOF {
			return payments, bad, nil
		}
		if readErr != nil {
			return payments, bad, fmt.Errorf("reading stopped at line %d: %w", n, readErr)
		}
	}
}

// readLine returns the next line, or what fits of it. The bytes are good until
// the next call.
func readLine(in *bufio.Reader) (line []byte, tooLong bool, err error) {
	line, err = in.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = in.ReadSlice('\n')
	}
	return line, tooLong, err
}

func parsePayment(line []byte) (payment, error) {
	if !utf8.Valid(line) {
		return payment{}, errors.New("not UTF-8")
	}
	var p payment
	if err := json.Unmarshal(line, &p); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return payment{}, fmt.Errorf("%q cannot be a %s", wrongType.Field, wrongType.Value)
		}
		return payment{}, fmt.Errorf("not a JSON object: %w", err)
	}
	switch {
	case p.Key == "":
		return payment{}, errors.New(`"key" is missing or empty`)
	case len(p.Key) > maxKey:
		return payment{}, fmt.Errorf(`"key" has %d bytes, at most %d are allowed`, len(p.Key), maxKey)
	}
	for _, c := range []byte(p.Key) { // it travels in an HTTP header
		if c < '!' || c > '~' {
			return payment{}, fmt.Errorf(`"key" must be visible ASCII characters without spaces, it is %q`, p.Key)
		}
	}
	return p, p.check()
}

// order is everything the input says under one key: the payment of its first
// line, and the later lines, which are either retries of it or must be refused.
type order struct {
	payment
	again []payment
}

// orders gathers the lines of each key, in the order of first use.
func orders(payments []payment) []order {
	var out []order
	index := make(map[string]int)
	for _, p := range payments {
		i, seen := index[p.Key]
		if !seen {
			index[p.Key] = len(out)
			out = append(out, order{payment: p})
			continue
		}
		out[i].again = append(out[i].again, p)
	}
	return out
}

// writePayments writes what readPayments reads.
func writePayments(w io.Writer, payments []payment) error {
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	for _, p := range payments {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return buf.Flush()
}
