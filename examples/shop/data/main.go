// Command data is the shop's data tier: the one process that owns the database, a SQLite file in
// $SERVENT_DATA. It answers an order only when the order is on disk.
package main

import (
	"errors"
	"log"
	"os"
	"path/filepath"

	"shop/sale"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() (err error) {
	folder := os.Getenv("SERVENT_DATA")
	if folder == "" {
		return errors.New("SERVENT_DATA is empty: want the folder of the database")
	}
	store, err := Open(filepath.Join(folder, "shop.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return sale.Main(NewServer(store))
}
