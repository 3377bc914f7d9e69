#include "textflag.h"

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// Each sum is in two vectors, ABEF and CDGH. X0 holds four words of the
// schedule with their constants added, X5 to X8 the last sixteen words.
#define ABEF1 X1
#define CDGH1 X2
#define ABEF2 X3
#define CDGH2 X4
#define OLDABEF1 X11
#define OLDCDGH1 X12
#define OLDABEF2 X13
#define OLDCDGH2 X14
#define SWAP X10

// LOAD reads the next four words of the message.
#define LOAD(off, w) \
	MOVOU off(SI), w \
	PSHUFB SWAP, w

// ROUNDS does four rounds of both sums. A round leaves ABEF in place of CDGH.
#define ROUNDS(i, w) \
	MOVOU (16*i)(R8), X0         \
	PADDD w, X0                  \
	SHA256RNDS2 X0, ABEF1, CDGH1 \
	SHA256RNDS2 X0, ABEF2, CDGH2 \
	PSHUFD $0x0e, X0, X0         \
	SHA256RNDS2 X0, CDGH1, ABEF1 \
	SHA256RNDS2 X0, CDGH2, ABEF2

// EXTEND makes the next four words of the schedule out of the last sixteen,
// in place of the oldest.
#define EXTEND(w0, w1, w2, w3) \
	MOVO w3, X9         \
	PALIGNR $4, w2, X9  \
	SHA256MSG1 w1, w0   \
	PADDD X9, w0        \
	SHA256MSG2 w3, w0

#define EXTENDED(i, w0, w1, w2, w3) \
	EXTEND(w0, w1, w2, w3) \
	ROUNDS(i, w0)

// func blocks(first, second *[8]uint32, p []byte)
TEXT ·blocks(SB), NOSPLIT, $0-40
	MOVQ first+0(FP), DI
	MOVQ second+8(FP), DX
	MOVQ p_base+16(FP), SI
	MOVQ p_len+24(FP), CX
	ADDQ SI, CX
	CMPQ SI, CX
	JEQ done
	LEAQ ·constants(SB), R8
	MOVOU swap<>(SB), SWAP
	MOVOU 0(DI), ABEF1
	MOVOU 16(DI), CDGH1
	MOVOU 0(DX), ABEF2
	MOVOU 16(DX), CDGH2

block:
	MOVO ABEF1, OLDABEF1
	MOVO CDGH1, OLDCDGH1
	MOVO ABEF2, OLDABEF2
	MOVO CDGH2, OLDCDGH2
	LOAD(0, X5)
	ROUNDS(0, X5)
	LOAD(16, X6)
	ROUNDS(1, X6)
	LOAD(32, X7)
	ROUNDS(2, X7)
	LOAD(48, X8)
	ROUNDS(3, X8)
	EXTENDED(4, X5, X6, X7, X8)
	EXTENDED(5, X6, X7, X8, X5)
	EXTENDED(6, X7, X8, X5, X6)
	EXTENDED(7, X8, X5, X6, X7)
	EXTENDED(8, X5, X6, X7, X8)
	EXTENDED(9, X6, X7, X8, X5)
	EXTENDED(10, X7, X8, X5, X6)
	EXTENDED(11, X8, X5, X6, X7)
	EXTENDED(12, X5, X6, X7, X8)
	EXTENDED(13, X6, X7, X8, X5)
	EXTENDED(14, X7, X8, X5, X6)
	EXTENDED(15, X8, X5, X6, X7)
	PADDD OLDABEF1, ABEF1
	PADDD OLDCDGH1, CDGH1
	PADDD OLDABEF2, ABEF2
	PADDD OLDCDGH2, CDGH2
	ADDQ $64, SI
	CMPQ SI, CX
	JNE block

	MOVOU ABEF1, 0(DI)
	MOVOU CDGH1, 16(DI)
	MOVOU ABEF2, 0(DX)
	MOVOU CDGH2, 16(DX)

done:
	RET

// swap turns the bytes of each word around.
DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), NOPTR+RODATA, $16
