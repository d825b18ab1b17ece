package attack

import (
	"os"
	"strconv"
	"testing"
)

func TestMain(m *testing.M) {
	BeChild()
	beJob()
	os.Exit(m.Run())
}

// setting returns a number from the environment, or what is given.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, and should be a number", name, text)
	}
	return n
}

// What the make targets set.
const (
	roundsEnv = "IDEM_ATTACK_ROUNDS" // kills
	imagesEnv = "IDEM_ATTACK_IMAGES" // of disks
	faultsEnv = "IDEM_ATTACK_FAULTS" // calls that fail, and bits flipped
	caseEnv   = "IDEM_ATTACK_CASE"   // the only one, by its name
	storeEnv  = "IDEM_ATTACK_STORE"  // where a store was kept whose bit is to be flipped again
	seedEnv   = "IDEM_ATTACK_SEED"
	engineEnv = "IDEM_ATTACK_ENGINE" // the only one
)
