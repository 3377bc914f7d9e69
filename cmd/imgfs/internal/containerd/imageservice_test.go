package containerd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// withBytes returns a message that is some bytes.
func withBytes(data []byte) *emptypb.Empty {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(data)
	return m
}

// A fakeRuntime is a server of all methods that there may be.
type fakeRuntime struct {
	t      *testing.T
	server *grpc.Server
	// answers is called for each call, after its request has come.
	answers func(method string, request []byte, s grpc.ServerStream) error
}

// listen has the runtime serve at a path.
func (r *fakeRuntime) listen(path string) {
	r.t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.server = grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		m := new(emptypb.Empty)
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		return r.answers(method, m.ProtoReflect().GetUnknown(), s)
	}))
	server := r.server
	go server.Serve(l)
	r.t.Cleanup(server.Stop)
}

// between starts an ImageService before a runtime, and returns a client of it.
func between(t *testing.T, address string) (*grpc.ClientConn, *Credentials) {
	t.Helper()
	kept := &Credentials{}
	images, err := NewImageService(address, kept, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenAt(t.Context(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(images.serve))
	go server.Serve(l)
	client, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Stop()
		images.Close()
	})
	return client, kept
}

// call makes a call and returns the bytes that come back.
func call(ctx context.Context, client *grpc.ClientConn, method string, request []byte) ([]byte, error) {
	answer := new(emptypb.Empty)
	err := client.Invoke(ctx, method, withBytes(request), answer)
	return answer.ProtoReflect().GetUnknown(), err
}

// TestImageService: calls are handed on as they are, with what belongs to them, and so are
// their answers.
func TestImageService(t *testing.T) {
	address := filepath.Join(t.TempDir(), "c")
	big := bytes.Repeat(texts("", strings.Repeat("x", 1<<20)), 10) // more than grpc takes by default
	r := &fakeRuntime{t: t}
	r.answers = func(method string, request []byte, s grpc.ServerStream) error {
		switch method {
		case imageServicePrefix + "ListImages":
			md, _ := metadata.FromIncomingContext(s.Context())
			if got := md.Get("traceparent"); len(got) != 1 || got[0] != "00-1" {
				t.Errorf("metadata %v", md)
			}
			if deadline, ok := s.Context().Deadline(); !ok || time.Until(deadline) > time.Minute {
				t.Errorf("deadline %v, %v", deadline, ok)
			}
			return s.SendMsg(withBytes(append(request, big...)))
		case imageServicePrefix + "RemoveImage":
			said, err := status.New(codes.NotFound, "no such image").WithDetails(durationpb.New(time.Second))
			if err != nil {
				t.Error(err)
			}
			return said.Err()
		case imageServicePrefix + "ImageStatus":
			<-s.Context().Done()
			return status.FromContextError(s.Context().Err()).Err()
		case imageServicePrefix + "StreamImages":
			for range 3 {
				if err := s.SendMsg(withBytes(request)); err != nil {
					return err
				}
			}
			return status.Error(codes.Aborted, "after three")
		}
		t.Errorf("%s is handed on", method)
		return nil
	}
	r.listen(address)
	client, _ := between(t, "unix://"+address)

	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-1"), time.Minute)
	defer cancel()
	request := texts("filter", "", "more")
	got, err := client.NewStream(ctx, &grpc.StreamDesc{}, imageServicePrefix+"ListImages", grpc.MaxCallRecvMsgSize(maxImageMessage))
	if err != nil {
		t.Fatal(err)
	}
	answer := new(emptypb.Empty)
	if err := errors.Join(got.SendMsg(withBytes(request)), got.CloseSend(), got.RecvMsg(answer)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(answer.ProtoReflect().GetUnknown(), append(request, big...)) {
		t.Errorf("the answer is another one, of %d bytes", proto.Size(answer))
	}

	_, err = call(t.Context(), client, imageServicePrefix+"RemoveImage", nil)
	if said := status.Convert(err); said.Code() != codes.NotFound || said.Message() != "no such image" || len(said.Details()) != 1 {
		t.Errorf("error %v, details %v", err, said.Details())
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = call(short, client, imageServicePrefix+"ImageStatus", nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("after the deadline: %v", err)
	}
	stream, err := client.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, imageServicePrefix+"StreamImages")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(withBytes(request)), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		err := stream.RecvMsg(answer)
		if n < 3 && err != nil || n == 3 && status.Code(err) != codes.Aborted {
			t.Errorf("answer %d: %v", n, err)
		}
	}
	for _, method := range []string{"/runtime.v1.RuntimeService/Version", "/runtime.v1.ImageServiceX/Y", "/containerd.services.images.v1.Images/List"} {
		if _, err := call(t.Context(), client, method, nil); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestImageServicePulls: a credential is there while its pull is under way, and afterwards if
// that was good.
func TestImageServicePulls(t *testing.T) {
	address := filepath.Join(t.TempDir(), "c")
	r := &fakeRuntime{t: t}
	r.listen(address)
	client, kept := between(t, address)
	request := pullOf("reg.example/app:v1", "joe", "secret")
	for _, fails := range []bool{true, false} {
		during := ""
		r.answers = func(method string, got []byte, s grpc.ServerStream) error {
			during = has(kept, "reg.example", "app")
			switch {
			case method != pullMethod || !bytes.Equal(got, request):
				return status.Errorf(codes.Internal, "%s with %q", method, got)
			case fails:
				return status.Error(codes.Unauthenticated, "refused")
			}
			return s.SendMsg(withBytes(texts("ref")))
		}
		answer, err := call(t.Context(), client, pullMethod, request)
		if fails && (status.Code(err) != codes.Unauthenticated || has(kept, "reg.example", "app") != "") {
			t.Errorf("a pull that fails: %v, and then that of %q is kept", err, has(kept, "reg.example", "app"))
		}
		if !fails && (err != nil || !bytes.Equal(answer, texts("ref")) || has(kept, "reg.example", "app") != "joe") {
			t.Errorf("a pull: %q, %v, and then that of %q is kept", answer, err, has(kept, "reg.example", "app"))
		}
		if during != "joe" {
			t.Errorf("while the pull is under way that of %q is kept", during)
		}
	}
	// What is read of a request changes nothing of what is handed on.
	for _, odd := range [][]byte{pullOf("", ""), pullOf("reg.example/x", "", "", "no base64"), texts("\xff")} {
		r.answers = func(_ string, got []byte, s grpc.ServerStream) error {
			if !bytes.Equal(got, odd) {
				t.Errorf("%q came, want %q", got, odd)
			}
			return s.SendMsg(withBytes(nil))
		}
		if _, err := call(t.Context(), client, pullMethod, odd); err != nil {
			t.Errorf("%q: %v", odd, err)
		}
	}
}

// TestImageServiceRestart: a runtime that is not there yet, or is gone, is an error at once, and
// one that is started again is found.
func TestImageServiceRestart(t *testing.T) {
	address := filepath.Join(t.TempDir(), "c")
	r := &fakeRuntime{t: t, answers: func(_ string, _ []byte, s grpc.ServerStream) error { return s.SendMsg(withBytes(nil)) }}
	client, _ := between(t, address)
	for range 3 {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := call(ctx, client, imageServicePrefix+"ListImages", nil)
		cancel()
		if status.Code(err) != codes.Unavailable || time.Since(begun) > 20*time.Second {
			t.Errorf("without a runtime: %v after %v", err, time.Since(begun))
		}
		r.listen(address)
		for begun = time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if _, err = call(t.Context(), client, imageServicePrefix+"ListImages", nil); err == nil {
				break
			}
			if status.Code(err) != codes.Unavailable || time.Since(begun) > 20*time.Second {
				t.Fatalf("with a runtime again: %v after %v", err, time.Since(begun))
			}
		}
		r.server.Stop()
	}
}

// TestImageServiceAddress: what can be no socket is refused.
func TestImageServiceAddress(t *testing.T) {
	for _, address := range []string{"", "containerd.sock", "unix://", "unix:containerd.sock", "tcp://127.0.0.1:1", "/" + strings.Repeat("a", maxAddress)} {
		if _, err := NewImageService(address, nil, t.Logf); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
}
