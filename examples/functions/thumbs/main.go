//go:build wasip1

// Thumbs is a function in Go that lives on from call to call: PUT /thumbs/NAME keeps a small copy of a picture, GET gives it.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strings"
)

const (
	side = 128      // pixels of a thumbnail's longer side
	most = 16 << 20 // pixels of a picture
)

var (
	pictures = database("pictures")
	made     int // by this instance
)

func serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/thumbs/")
	switch r.Method {
	case http.MethodPut:
		b, err := thumbnail(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := pictures.put(name, b); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		made++
		logf("%s: %d bytes, number %d of this instance", name, len(b), made)
		w.WriteHeader(http.StatusCreated)
	case http.MethodGet:
		b, err := pictures.get(name)
		switch {
		case errors.Is(err, errAbsent):
			http.NotFound(w, r)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			w.Header().Set("Content-Type", "image/png")
			w.Write(b)
		}
	case http.MethodDelete:
		if err := pictures.del(name); err != nil && !errors.Is(err, errAbsent) {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "want PUT, GET or DELETE /thumbs/NAME", http.StatusMethodNotAllowed)
	}
}

// thumbnail reads a PNG, JPEG or GIF and returns a PNG of at most 128 pixels a side.
func thumbnail(from io.Reader) ([]byte, error) {
	all, err := io.ReadAll(from)
	if err != nil {
		return nil, err
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(all))
	if err != nil {
		return nil, err
	}
	if c.Width*c.Height > most {
		return nil, fmt.Errorf("want at most %d pixels, have %d x %d", most, c.Width, c.Height)
	}
	picture, _, err := image.Decode(bytes.NewReader(all))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = png.Encode(&out, shrink(picture))
	return out.Bytes(), err
}

// shrink makes each pixel the mean of those that it stands for.
func shrink(p image.Image) image.Image {
	b := p.Bounds()
	w, h := b.Dx(), b.Dy()
	tw, th := w, h
	if longer := max(w, h); longer > side {
		tw, th = max(1, w*side/longer), max(1, h*side/longer)
	}
	out := image.NewNRGBA(image.Rect(0, 0, tw, th))
	for y := range th {
		for x := range tw {
			var red, green, blue, alpha, n uint64
			for v := y * h / th; v < max(y*h/th+1, (y+1)*h/th); v++ {
				for u := x * w / tw; u < max(x*w/tw+1, (x+1)*w/tw); u++ {
					r, g, b, a := p.At(b.Min.X+u, b.Min.Y+v).RGBA()
					red, green, blue, alpha, n = red+uint64(r), green+uint64(g), blue+uint64(b), alpha+uint64(a), n+1
				}
			}
			out.Set(x, y, color.RGBA64{uint16(red / n), uint16(green / n), uint16(blue / n), uint16(alpha / n)})
		}
	}
	return out
}
