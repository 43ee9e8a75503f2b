package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"shop/sale"

	_ "modernc.org/sqlite" // SQLite as pure Go: no C compiler is needed
)

// Store is the shop's database.
type Store struct{ db *sql.DB }

// synchronous=FULL waits for the disk at each commit: what was acknowledged survives a power cut.
// WAL lets readers read while one writes; immediate transactions queue for the file before they read.
const settings = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(5000)&_txlock=immediate"

const schema = `
CREATE TABLE IF NOT EXISTS products (
	id    INTEGER PRIMARY KEY,
	name  TEXT NOT NULL,
	price INTEGER NOT NULL -- cents
) STRICT;
CREATE TABLE IF NOT EXISTS orders (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	key      TEXT NOT NULL UNIQUE, -- the buyer's: the same order sent again has the same
	product  INTEGER NOT NULL REFERENCES products (id),
	quantity INTEGER NOT NULL,
	at       INTEGER NOT NULL -- microseconds since 1970
) STRICT;`

// Open opens the database file, and makes and fills it when it is new.
func Open(file string) (*Store, error) {
	path := filepath.ToSlash(file)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // file:///C:/… on Windows
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: settings}).String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	db.SetMaxOpenConns(8)
	if err := fill(db); err != nil {
		return nil, errors.Join(fmt.Errorf("make the tables of %s: %w", file, err), db.Close())
	}
	return &Store{db}, nil
}

// fill makes tables and catalogue in one transaction: all or nothing of it is there after a crash.
func fill(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if _, err := tx.Exec(schema); err != nil {
		return err
	}
	for _, p := range sale.Catalogue {
		if _, err := tx.Exec("INSERT INTO products VALUES (?, ?, ?) ON CONFLICT DO NOTHING", p.ID, p.Name, p.Price); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Close ends all use of the database.
func (s *Store) Close() error { return s.db.Close() }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return s.db.QueryRowContext(ctx, "SELECT 1 FROM products LIMIT 1").Scan(&one)
}

// Products lists what is sold.
func (s *Store) Products(ctx context.Context) ([]sale.Product, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, name, price FROM products ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	products := []sale.Product{}
	for rows.Next() {
		var p sale.Product
		if err := rows.Scan(&p.ID, &p.Name, &p.Price); err != nil {
			return nil, err
		}
		products = append(products, p)
	}
	return products, rows.Err()
}

// Orders lists the newest orders with an ID below before, at most a page of them.
func (s *Store) Orders(ctx context.Context, before int64) ([]sale.Order, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, key, product, quantity, at FROM orders WHERE id < ? ORDER BY id DESC LIMIT ?", before, sale.Page)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	orders := []sale.Order{}
	for rows.Next() {
		o, err := scan(rows)
		if err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

// Place writes an order, or finds the one that was written under its key before. When it returns
// without an error the order is on disk.
func (s *Store) Place(ctx context.Context, o sale.Order) (sale.Placed, error) {
	if err := o.Check(); err != nil {
		return sale.Placed{}, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return sale.Placed{}, err
	}
	defer tx.Rollback() // after a commit it does nothing

	first, err := scan(tx.QueryRowContext(ctx, "SELECT id, key, product, quantity, at FROM orders WHERE key = ?", o.Key))
	if err == nil {
		return sale.Placed{Order: first, Repeated: true}, o.Same(first)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return sale.Placed{}, err
	}
	var sold bool
	if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM products WHERE id = ?)", o.Product).Scan(&sold); err != nil {
		return sale.Placed{}, err
	}
	if !sold {
		return sale.Placed{}, sale.NoProduct(o.Product)
	}
	o.At = time.Now().UTC().Truncate(time.Microsecond)
	err = tx.QueryRowContext(ctx, "INSERT INTO orders (key, product, quantity, at) VALUES (?, ?, ?, ?) RETURNING id",
		o.Key, o.Product, o.Quantity, o.At.UnixMicro()).Scan(&o.ID)
	if err != nil {
		return sale.Placed{}, err
	}
	if err := tx.Commit(); err != nil {
		return sale.Placed{}, err
	}
	return sale.Placed{Order: o}, nil
}

// scan reads one order.
func scan(row interface{ Scan(...any) error }) (sale.Order, error) {
	var o sale.Order
	var at int64
	err := row.Scan(&o.ID, &o.Key, &o.Product, &o.Quantity, &at)
	o.At = time.UnixMicro(at).UTC()
	return o, err
}
