/** One task: let the connections of this process to some ports of loopback go through a chaos proxy instead. */
import { Socket } from 'node:net';

/** Real port to the port that is connected to instead. The configuration keeps the real one, so that all nodes have the same. */
export type Routes = Readonly<Record<string, number>>;

/**
 * From now on every connection of this process takes its route; not to be called twice.
 *
 * Every way to connect in Node ends in `Socket.prototype.connect`, whose first argument is the port, the options, or an array
 * that begins with the options (Node.js documentation, `net`).
 */
export function redirectConnections(routes: Routes): void {
  const target = Socket.prototype as { connect: (...args: unknown[]) => Socket };
  const original = target.connect;
  const portOf = (port: unknown): unknown => routes[String(port)] ?? port;
  const redirect = (first: unknown): unknown => {
    if (typeof first === 'number' || typeof first === 'string') return portOf(first);
    if (typeof first === 'object' && first !== null && 'port' in first) first.port = portOf(first.port);
    return first;
  };
  target.connect = function (this: Socket, ...args: unknown[]): Socket {
    const [first] = args;
    if (Array.isArray(first)) first[0] = redirect(first[0]);
    else args[0] = redirect(first);
    return original.apply(this, args);
  };
}
