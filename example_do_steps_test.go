package idem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// trip is how far the booking of a trip has come: what each step gave back.
type trip struct{ Flight, Hotel, Mail string }

// travel are the services further down. Each takes a key and, shown it again, gives
// the answer that it gave.
type travel struct {
	book  func(ctx context.Context, step, key string) (string, error)
	saved func(step string) error // after a checkpoint; here it is where the process dies
}

// bookTrip books in three steps and saves how far it came after each. An attempt that
// finds a checkpoint goes on from there.
func bookTrip(ctx context.Context, store *idem.Store, services travel, id string) (trip, bool, error) {
	return idem.Do(ctx, store, idem.Request{Key: id}, func(ctx context.Context, claim idem.Claim) (trip, error) {
		var t trip
		if point := claim.Record.Checkpoint; point != nil {
			if err := json.Unmarshal(point, &t); err != nil {
				return t, err
			}
		}
		for _, step := range []struct {
			name string
			done *string
		}{{"flight", &t.Flight}, {"hotel", &t.Hotel}, {"mail", &t.Mail}} {
			if *step.done != "" {
				continue // by an attempt before this one
			}
			// The key is the same on every attempt: an attempt that died after the booking
			// and before its checkpoint asks again, and is given the same booking.
			booking, err := services.book(ctx, step.name, idem.DownstreamKey(id, step.name))
			if err != nil {
				return t, err
			}
			*step.done = booking
			point, err := json.Marshal(t)
			if err != nil {
				return t, err
			}
			if err := store.Checkpoint(ctx, claim.Token, point); err != nil {
				return t, err
			}
			if err := services.saved(step.name); err != nil {
				return t, err
			}
		}
		return t, nil
	})
}

// openTrips opens the store in the process that alone books trips: whoever held a
// claim before is gone.
func openTrips(path string) (*idem.Store, error) {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	return idem.New(backend, idem.Options{LapseOnOpen: true})
}

// An operation of three steps whose process dies after each of them. The next process
// goes on where it stopped, and no step is done twice.
func ExampleDo_checkpoints() {
	dir, err := os.MkdirTemp("", "idem")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	died := errors.New("the process died")
	for process, dies := range []string{"flight", "hotel", "mail", "", ""} {
		store, err := openTrips(filepath.Join(dir, "trips.db"))
		if err != nil {
			panic(err)
		}
		services := travel{
			book: func(_ context.Context, step, key string) (string, error) {
				fmt.Printf("process %d books the %s with key %s…\n", process+1, step, key[:8])
				return step + " booked", nil
			},
			saved: func(step string) error {
				if step != dies {
					return nil
				}
				return errors.Join(died, store.Close()) // nothing more of this process is recorded
			},
		}
		booked, replayed, err := bookTrip(context.Background(), store, services, "trip-7")
		switch {
		case errors.Is(err, died):
			fmt.Printf("process %d dies\n", process+1)
		case err != nil:
			panic(err)
		default:
			fmt.Printf("process %d: %+v, replayed: %t\n", process+1, booked, replayed)
		}
		if err := store.Close(); err != nil {
			panic(err)
		}
	}
	// Output:
	// process 1 books the flight with key -83VHwgk…
	// process 1 dies
	// process 2 books the hotel with key 90ZvRmp0…
	// process 2 dies
	// process 3 books the mail with key BNTejeUX…
	// process 3 dies
	// process 4: {Flight:flight booked Hotel:hotel booked Mail:mail booked}, replayed: false
	// process 5: {Flight:flight booked Hotel:hotel booked Mail:mail booked}, replayed: true
}
