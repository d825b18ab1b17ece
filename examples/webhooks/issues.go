package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// event is what the example reads of GitHub's "issues" events. Others leave nothing,
// and are done once like these.
type event struct {
	Issue struct {
		Number    int       `json:"number"`
		State     string    `json:"state"`
		UpdatedAt time.Time `json:"updated_at"`
	} `json:"issue"`
	Repository struct {
		FullName string `json:"full_name"`
	} `json:"repository"`
}

// issue is what is known of one issue.
type issue struct {
	State     string
	UpdatedAt time.Time
	Events    int // each counted once
}

func readEvent(r *http.Request) (e event, err error) {
	if r.Header.Get("X-GitHub-Event") != "issues" {
		return e, nil
	}
	return e, json.NewDecoder(r.Body).Decode(&e)
}

var issues = []byte("issues")

// record adds the event to what is known. Once-only is not in-order: an event that is
// older than what is known already is counted, and does not change the state.
func (e event) record(tx *bbolt.Tx) error {
	if e.Repository.FullName == "" {
		return nil
	}
	bucket, err := tx.CreateBucketIfNotExists(issues)
	if err != nil {
		return err
	}
	key := fmt.Appendf(nil, "%s#%d", e.Repository.FullName, e.Issue.Number)
	var known issue
	if b := bucket.Get(key); b != nil {
		if err := json.Unmarshal(b, &known); err != nil {
			return err
		}
	}
	known.Events++
	if e.Issue.UpdatedAt.After(known.UpdatedAt) {
		known.State, known.UpdatedAt = e.Issue.State, e.Issue.UpdatedAt
	}
	b, err := json.Marshal(known)
	if err != nil {
		return err
	}
	return bucket.Put(key, b)
}

// list answers with all that is known, as JSON.
func list(store *idem.Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		all := map[string]json.RawMessage{}
		backend, err := bolt.From(store)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		err = backend.DB().View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(issues)
			if bucket == nil {
				return nil
			}
			return bucket.ForEach(func(k, v []byte) error {
				all[string(k)] = append(json.RawMessage(nil), v...)
				return nil
			})
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all)
	})
}
