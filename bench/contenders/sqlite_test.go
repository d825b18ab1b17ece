package contenders

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What is said of SQLite's settings is so on every connection: WAL, and a sync of it
// in every commit.
func TestSQLiteIsConfiguredAsSaid(t *testing.T) {
	t.Parallel()
	for _, exclusive := range []bool{true, false} {
		db, err := openSQLite(t.TempDir(), 2, exclusive)
		require.NoError(t, err)
		want := map[string]string{
			"journal_mode": "wal", "synchronous": "2", "wal_autocheckpoint": "1000",
			"cache_size": "-65536", "locking_mode": "normal",
		}
		if exclusive {
			want["locking_mode"] = "exclusive"
		}
		for name, value := range want {
			var got string
			require.NoError(t, db.QueryRow("PRAGMA "+name).Scan(&got))
			require.Equal(t, value, got, name)
		}
		require.NoError(t, db.Close())
	}
}
