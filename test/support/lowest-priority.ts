/** One task: let the tests of a file have only what others leave of the processors. */
import { constants, setPriority } from 'node:os';

setPriority(constants.priority.PRIORITY_LOW);
