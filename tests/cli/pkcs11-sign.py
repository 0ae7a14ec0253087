# Signs standard input with an ed25519 key of a PKCS#11 token, in one piece: what ed25519 needs, and pkcs11-tool does for
# little input alone. Arguments: the token's module, its label, its PIN, the id of the key in hexadecimal.
import sys
import PyKCS11

module, label, pin, key = sys.argv[1:5]
EDDSA = 0x1057
library = PyKCS11.PyKCS11Lib()
library.load(module)
slot = next(s for s in library.getSlotList(tokenPresent=True) if library.getTokenInfo(s).label.strip() == label)
session = library.openSession(slot)
session.login(pin)
wanted = [(PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY), (PyKCS11.CKA_ID, bytes.fromhex(key))]
private = session.findObjects(wanted)[0]
signature = session.sign(private, sys.stdin.buffer.read(), PyKCS11.Mechanism(EDDSA, None))
sys.stdout.buffer.write(bytes(signature))
