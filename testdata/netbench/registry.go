package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// startRegistry runs docker-registry until the bench ends.
func (b *bench) startRegistry() error {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		program, err = exec.LookPath("registry") // so Fedora calls it
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.registry = l.Addr().String()
	l.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n",
		filepath.Join(b.dir, "registry"), b.registry)
	path := filepath.Join(b.dir, "registry.yml")
	if err := os.WriteFile(path, []byte(conf), 0o666); err != nil {
		return err
	}
	cmd := b.command(context.WithoutCancel(b.ctx), program, "serve", path)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	b.stops = append(b.stops, func() error {
		err := cmd.Process.Kill()
		<-ended
		if errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("%s ended by itself:\n%s", program, &out)
		}
		return err
	})
	return b.awaitRegistry(ended)
}

// awaitRegistry waits until the registry answers.
func (b *bench) awaitRegistry(ended <-chan struct{}) error {
	for {
		resp, err := http.Get("http://" + b.registry + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("the registry does not start")
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// push copies an image into the registry, byte for byte, and past the proxy.
func (b *bench) push(img *image) error {
	_, err := b.output(b.ctx, "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
		"oci:"+img.layout+":"+labimage.Tag, "docker://"+b.registry+"/"+img.name)
	return err
}

// near names an image in the registry itself, far by way of the proxy.
func (b *bench) near(img *image) string { return b.registry + "/" + img.name }

func (b *bench) far(img *image) string { return b.proxy.host + "/" + img.name }
