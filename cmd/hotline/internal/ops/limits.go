package ops

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/hotline12345/gateway/sip/media"
)

// What the gateway takes of memory: the process itself, and what a call with its audio, its recording and
// its place in a queue holds at the most.
const (
	memoryOther = 256 << 20
	memoryACall = 512 << 10
)

func lookBuffers(_ context.Context, in Inputs) (Level, string, string) {
	return buffers(os.DirFS("/"), in)
}

func buffers(root fs.FS, in Inputs) (Level, string, string) {
	if in.Buffer == 0 {
		return Skipped, notGiven, ""
	}
	mend := fmt.Sprintf("sysctl -w net.core.rmem_max=%d, and write it into /etc/sysctl.d.", in.Buffer)
	b, err := fs.ReadFile(root, "proc/sys/net/core/rmem_max")
	if err != nil {
		return Warn, "net.core.rmem_max cannot be read", mend
	}
	allowed, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return Warn, "net.core.rmem_max: " + err.Error(), mend
	}
	detail := fmt.Sprintf("net.core.rmem_max is %d, %d are asked for", allowed, in.Buffer)
	if allowed < in.Buffer {
		return Warn, detail, mend
	}
	return Well, detail, ""
}

func lookMemory(_ context.Context, in Inputs) (Level, string, string) {
	return bounds(os.DirFS("/"), os.LookupEnv, in)
}

// bounds tells which memory limit the gateway runs with, as Tune sets it.
func bounds(root fs.FS, env func(string) (string, bool), in Inputs) (Level, string, string) {
	need := int64(memoryOther + memoryACall*in.Calls)
	mend := fmt.Sprintf("Set GOMEMLIMIT=%dMiB and MemoryMax=%dM or more in the unit, or lower sip.max_calls.", need>>20, need>>20*5/4)
	if value, set := env("GOMEMLIMIT"); set {
		return Well, "GOMEMLIMIT=" + value, ""
	}
	limit, from := memory(root)
	if limit == 0 {
		return Warn, "neither GOMEMLIMIT nor a control group bounds the memory", mend
	}
	detail := fmt.Sprintf("%d MiB by the %s, %d calls need %d MiB", limit>>20, from, in.Calls, need>>20)
	if limit < need {
		return Warn, detail, mend
	}
	return Well, detail, ""
}

// lookRing tells whether packets can be read and sent many by one system call.
func lookRing(_ context.Context, _ Inputs) (Level, string, string) {
	if err := media.Gathers(); err != nil {
		return Warn, "each RTP packet takes a system call, at twice the cost: " + err.Error(),
			"Use Linux 6.1 or newer, set kernel.io_uring_disabled=0, and let a container's seccomp profile allow io_uring_setup, io_uring_enter and io_uring_register."
	}
	return Well, "many RTP packets take one system call (io_uring)", ""
}

func lookRTP(_ context.Context, in Inputs) (Level, string, string) {
	if in.RTPPairs == 0 {
		return Skipped, "the system chooses them", ""
	}
	need := 2 * in.Calls // the caller's, and the agent's or the service's
	detail := fmt.Sprintf("%d pairs, %d calls need %d", in.RTPPairs, in.Calls, need)
	if in.RTPPairs < need {
		return Warn, detail, fmt.Sprintf("Set sip.media.port_min and port_max %d ports apart, or lower sip.max_calls: callers would wait whom no agent can be rung for.", 2*need)
	}
	return Well, detail, ""
}
