package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	imageServicePrefix = "/runtime.v1.ImageService/"
	pullMethod         = imageServicePrefix + "PullImage"
	// maxImageMessage is how long an answer may be, as for kubelet.
	maxImageMessage = 16 << 20
)

// An ImageService hands on calls of the container runtime interface about images, and keeps
// the credentials that images are pulled with.
type ImageService struct {
	conn        *grpc.ClientConn
	credentials *Credentials
	// Debugf is told what is wrong with a pull that is handed on all the same.
	debugf func(format string, args ...any)
}

// NewImageService hands on calls to the socket of a runtime, which need not be there yet: an
// absolute path, or a URL of the scheme unix. It is connected to when it is first called, and
// again after it was started anew; calls while nobody listens fail at once, as without this
// server between.
func NewImageService(address string, credentials *Credentials, debugf func(format string, args ...any)) (*ImageService, error) {
	path := strings.TrimPrefix(address, "unix://")
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s is no socket's absolute path", printable.Name(address))
	}
	if len(path) > maxAddress {
		return nil, tooLong(path)
	}
	retry := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 5 * time.Second}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxImageMessage), grpc.MaxCallSendMsgSize(maxImageMessage)))
	if err != nil {
		return nil, err
	}
	return &ImageService{conn: conn, credentials: credentials, debugf: debugf}, nil
}

// Close ends calls that are under way.
func (s *ImageService) Close() error { return s.conn.Close() }

// serve is a grpc.StreamHandler for all calls that no other service of the server takes.
func (s *ImageService) serve(_ any, caller grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(caller)
	if !strings.HasPrefix(method, imageServicePrefix) {
		return status.Errorf(codes.Unimplemented, "unknown method %s", method)
	}
	// A message without fields keeps all that it is given, as it is.
	request := new(emptypb.Empty)
	if err := caller.RecvMsg(request); err != nil {
		return err
	}
	done := func(bool) {}
	if method == pullMethod {
		done = s.note(request.ProtoReflect().GetUnknown())
	}
	err := s.handOn(caller, method, request)
	done(err == nil)
	return err
}

// note notes the credential of a pull.
func (s *ImageService) note(message []byte) (done func(ok bool)) {
	pull, err := parsePull(message)
	var c hosts.Credential
	if err == nil {
		c, err = pull.credential()
	}
	switch {
	case err != nil:
		s.debugf("the credential of a pull is not kept: %v", err)
	case !c.Empty() && !fits(c):
		s.debugf("the credential of a pull is not kept: it has more than %d bytes", maxCredential)
	}
	return s.credentials.Pulling(pull.image, c)
}

// handOn makes a call that has come, and brings back its answer, or answers.
func (s *ImageService) handOn(caller grpc.ServerStream, method string, request *emptypb.Empty) error {
	ctx, cancel := context.WithCancel(caller.Context()) // with the deadline of the caller
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy()) // what belongs to a connection is left out there
	}
	call, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	// What went wrong when sending is what receiving says.
	if err := call.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := call.CloseSend(); err != nil {
		return err
	}
	for {
		answer := new(emptypb.Empty)
		switch err := call.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := caller.SendMsg(answer); err != nil {
			return err
		}
	}
}
