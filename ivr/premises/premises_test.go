package premises

import "testing"

func TestWordsStayInTheNetwork(t *testing.T) {
	for address, stays := range map[string]bool{"127.0.0.1:80": true, "10.1.2.3:80": true, "[::1]:80": true, "[fd00::1]:80": true, "[::ffff:10.0.0.1]:80": true,
		"8.8.8.8:80": false, "100.64.0.1:80": false, "[2001:db8::1]:80": false, "[::ffff:8.8.8.8]:80": false} {
		if err := private("tcp", address, nil); (err == nil) != stays {
			t.Errorf("%s: %v", address, err)
		}
	}
}
