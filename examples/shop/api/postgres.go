package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"shop/sale"
)

// Postgres is the data tier as a PostgreSQL server: see folder postgres.
type Postgres struct {
	pool *pgxpool.Pool
	made atomic.Bool // the tables are there
}

// NewPostgres prepares a pool of connections; it connects when it is first used.
func NewPostgres(host, port, password string) (*Postgres, error) {
	at := url.URL{Scheme: "postgres", User: url.UserPassword("shop", password), Host: host + ":" + port, Path: "postgres",
		RawQuery: "sslmode=disable&connect_timeout=5&pool_max_conns=8&application_name=shop-api"}
	pool, err := pgxpool.New(context.Background(), at.String())
	if err != nil {
		return nil, fmt.Errorf("prepare PostgreSQL at %s: %w", at.Host, err)
	}
	return &Postgres{pool: pool}, nil
}

// Close closes all connections.
func (p *Postgres) Close() { p.pool.Close() }

const tables = `
CREATE TABLE IF NOT EXISTS products (id bigint PRIMARY KEY, name text NOT NULL, price bigint NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
	id       bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	key      text NOT NULL UNIQUE, -- the buyer's: the same order sent again has the same
	product  bigint NOT NULL REFERENCES products,
	quantity bigint NOT NULL,
	at       timestamptz NOT NULL DEFAULT now()
);`

// within runs f in a transaction; the first makes the tables. It says which server answered.
func (p *Postgres) within(ctx context.Context, f func(pgx.Tx) error) (from string, err error) {
	err = pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		if !p.made.Load() {
			if err := fill(ctx, tx); err != nil {
				return fmt.Errorf("make the tables: %w", err)
			}
		}
		if err := tx.QueryRow(ctx, "SELECT current_setting('cluster_name') || ', PostgreSQL ' || current_setting('server_version')").Scan(&from); err != nil {
			return err
		}
		return f(tx)
	})
	if err == nil {
		p.made.Store(true)
	}
	return from, err
}

// fill makes tables and catalogue. Copies of this tier start together: the lock lets one do it.
func fill(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(5)"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, tables); err != nil {
		return err
	}
	for _, s := range sale.Catalogue {
		if _, err := tx.Exec(ctx, "INSERT INTO products VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", s.ID, s.Name, s.Price); err != nil {
			return err
		}
	}
	return nil
}

func (p *Postgres) Products(ctx context.Context) (products []sale.Product, from string, err error) {
	from, err = p.within(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, "SELECT id, name, price FROM products ORDER BY id") // CollectRows returns its error
		products, err = pgx.CollectRows(rows, pgx.RowToStructByPos[sale.Product])
		return err
	})
	return products, from, err
}

func (p *Postgres) Orders(ctx context.Context, before int64) (orders []sale.Order, from string, err error) {
	from, err = p.within(ctx, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, "SELECT id, key, product, quantity, at FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $2", before, sale.Page)
		orders, err = pgx.CollectRows(rows, pgx.RowToStructByPos[sale.Order])
		return err
	})
	return orders, from, err
}

func (p *Postgres) Place(ctx context.Context, o sale.Order) (placed sale.Placed, from string, err error) {
	from, err = p.within(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "INSERT INTO orders (key, product, quantity) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING RETURNING id, at",
			o.Key, o.Product, o.Quantity).Scan(&o.ID, &o.At)
		if err == nil {
			placed = sale.Placed{Order: o}
			return nil
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "23503" { // foreign_key_violation
			return sale.NoProduct(o.Product)
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		rows, _ := tx.Query(ctx, "SELECT id, key, product, quantity, at FROM orders WHERE key = $1", o.Key)
		first, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[sale.Order])
		if err != nil {
			return err
		}
		placed = sale.Placed{Order: first, Repeated: true}
		return o.Same(first)
	})
	return placed, from, err
}
