package main

import (
	"bytes"
	"math"
	"testing"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/ivr/prompt"
)

func TestNumeralsAreSpelled(t *testing.T) {
	voices := texts{"n0": "零", "n1": "一", "n2": "二", "n4": "四", "n9": "九", "n10": "十", "n1yao": "幺"}
	for chinese, want := range map[string]string{
		"请按1，返回请按9。":      "请按一，返回请按九。",
		"请按2，或按0。":        "请按二，或按零。",
		"直接拨打119。":        "直接拨打幺幺九。",
		"在24小时内处理。":       "在二十四小时内处理。",
		"wei4 您，chong2 听": "wei4 您，chong2 听", // pinyin stays
	} {
		if got := voices.mandarin(prompt.Prompt{Chinese: chinese}); got.text != want || got.voice != "cmn-latn-pinyin+f2" {
			t.Errorf("%s is spoken %q by %s; want %q", chinese, got.text, got.voice, want)
		}
	}
	if got := voices.mandarin(prompt.Prompt{Chinese: "x", Say: "en:For 12345 press 2."}); got.text != "For 1 2 3 4 5 press 2." || got.voice != "en-gb+f2" {
		t.Errorf("English within Mandarin: %+v", got)
	}
}

func TestWordsInARowStandClose(t *testing.T) {
	for text, want := range map[string]float64{"十": 0.04, "twenty": 0.04, "分钟": 0.04, "再见。": 0.2, "It ends.": 0.2} {
		if _, after := silence(text); after != want {
			t.Errorf("%q is followed by %v s; want %v s", text, after, want)
		}
	}
}

// What is built in is what the generator makes. Rounding may differ by an octet between processors.
func TestBuiltInSoundsAreFresh(t *testing.T) {
	for id, pcm := range map[string][]int16{"beep": beep(), "music": music()} {
		built, err := configs.Prompts.ReadFile("prompts/common/" + id + ".al")
		if err != nil {
			t.Fatal(err)
		}
		made := prompt.ALaw(pcm)
		if bytes.Equal(built, made) {
			continue
		}
		differ := math.Abs(float64(len(built) - len(made)))
		for i := range min(len(built), len(made)) {
			if built[i] != made[i] {
				differ++
			}
		}
		if differ > float64(len(made))/1000 {
			t.Errorf("%s: %v of %d octets differ; run go generate ./ivr/prompt", id, differ, len(made))
		}
	}
}
