/** One task: the workflows a worker serves, by the names operators start them with. */
export { cutover } from './cutover.js';
export { pause } from './pause.js';
export { replicate } from './replicate.js';
export { reshard } from './reshard.js';
export { schemaSync } from './schema-sync.js';
export { verify } from './verify.js';
