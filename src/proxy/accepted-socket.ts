/**
 * One task: have a socket that a listener has accepted read past its stream, as those are that the proxy opens itself.
 *
 * Node's `onread` is an option of a socket that is made (`net.Socket`, Node documentation), and a listener makes its own without it. So
 * another one is made for the same handle. A handle is not public: where it is not what it has been since Node 12, the accepted socket
 * stays, and is read through its stream.
 */
import { Socket, type SocketConstructorOpts } from 'node:net';
import { SharedRead } from '../postgres/direct-read.js';

/** As far as it is used here: TCP of libuv (lib/net.js). */
interface Handle {
  readStop(): unknown;
  useUserBuffer(buffer: Uint8Array): unknown;
}

type Owner = Socket & { _handle?: Handle | null };

/**
 * @param accepted paused, and nothing of it read (`pauseOnConnect`); not to be used any more
 * @returns a socket for the same connection, paused too
 */
export function readPastStream(accepted: Socket): Socket {
  const owner: Owner = accepted;
  const handle = owner._handle;
  if (handle === undefined || handle === null || !isKnown(handle)) return accepted;
  owner._handle = null;
  const read = new SharedRead();
  const options = { handle, pauseOnCreate: true, onread: read.options };
  const socket = new Socket(options as SocketConstructorOpts);
  read.opened(socket);
  // Nothing is open below it; the listener counts it no longer.
  accepted.destroy();
  return socket;
}

function isKnown(handle: Partial<Handle>): handle is Handle {
  return typeof handle.readStop === 'function' && typeof handle.useUserBuffer === 'function';
}
