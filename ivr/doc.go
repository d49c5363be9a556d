// Package ivr is the flow engine: what a caller hears and presses before a person answers.
//
// A flow is a YAML file. [Check] reads it strictly and tells everything that is wrong with its line,
// column and mend; a flow with faults never runs. [Render] draws it, [Simulate] plays scripted calls
// through it, and [Engine] walks live calls. The built-in flow puts a person first.
//
// # The file
//
//	start: welcome      the first node
//	person: person      the queue node of a caller who is stuck: who comes to no new node for
//	                    stuck_after (5 minutes by default) gets a person
//	language: zh        optional: zh or en, until the caller chooses
//	nodes:
//	  welcome:          a name
//	    type: say       and a type, with the keys of that type
//	    ...
//
// say is a list of prompts (configs/prompts/prompts.tsv) and spoken values: count:3, minutes:5,
// digits:12345, time:2026-03-03T09:00:00+08:00. A key ends a prompt early, but for notices of law.
//
//	say        say, next
//	menu       say, keys (key: node, back or repeat), timeout (5s; 1s to 1m), retries (2; 0 to 5),
//	           invalid and silent (said before it asks again), on_fail (a node: where silence and
//	           errors lead in the end, best a queue)
//	collect    say, max (20; 1 to 32), min (1), terminator ("#"; "*", none), timeout (to the first
//	           digit), gap (5s; between digits), retries, invalid, silent, on_fail, store (the name
//	           that intake gets; the node's own by default), next
//	queue      queue (a name of the configuration), credit (0; up to 10m, added to the wait), say
//	transfer   endpoint (a name of ivr.targets: a caller never chooses a destination), say
//	hours      week (mon-fri: 08:00-20:00, or a list of parts), holidays, workdays (days with a
//	           Monday's hours), open, closed; by the clock of Asia/Shanghai
//	language   set (zh or en), next; or say, keys (key: zh or en), timeout, next
//	announce   file (events*.yaml beside the flow), next; see [Announcement]
//	message    say (leave_msg), limit (2m; 10s to 5m), next; the tone follows by itself
//	hangup     say
//	emergency  service (110, 119, 120 or 122; without it the caller is asked)
//
// # Keys
//
// Key 0 is the emergency key of the whole line and no flow may use it; inside a collection it is a
// digit, and *0 takes its place. Key 9 is a person, or back.
//
// # What Check refuses
//
// Unknown keys and names, keys written twice, values out of bounds, menus without an on_fail, prompts
// that the catalogue lacks, nodes that nothing leads to, loops without a caller's key or a wait, and
// places from which no way leads to a person. More than two menus in a row are a warning.
package ivr
