package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/idemkv/idem/idemhttp"
)

// bankClient is the service's way to a bank.
type bankClient struct {
	url        string
	checksKeys bool
	server     uint64 // which start of the server this is
	http       *http.Client
}

// bankTimeout bounds a call to a bank. The claim needs no such bound: idemhttp keeps
// it alive while the handler runs.
const bankTimeout = 15 * time.Second

// newBankClient makes a client for the bank at url. Only a bank that checks keys can be
// asked twice, so only that one gets a Transport that asks again.
func newBankClient(url string, server uint64, checksKeys bool) bankClient {
	var transport http.RoundTripper = &http.Transport{MaxIdleConnsPerHost: 100}
	if checksKeys {
		transport = &idemhttp.Transport{Base: transport}
	}
	return bankClient{url, checksKeys, server, &http.Client{Transport: transport, Timeout: bankTimeout}}
}

// bankOrder is the body of a request to a bank.
type bankOrder struct {
	payment
	// Reference goes onto the bank's statement.
	Reference string `json:"reference"`
	// Server is which start of the server asks. A real one would not say.
	Server uint64 `json:"server"`
}

// charge asks the bank to charge p. The reference is also the idempotency key, for a
// bank that checks one. After an error nobody here knows whether it was charged.
func (c bankClient) charge(ctx context.Context, reference string, p payment) (receipt []byte, err error) {
	body, err := json.Marshal(bankOrder{p, reference, c.server})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.checksKeys { // else not: net/http takes it as leave to send the request again by itself
		req.Header.Set("Idempotency-Key", reference)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("the bank answered %s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	return answer, err
}
