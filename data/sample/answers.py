"""Responses of known quality: the answer first and in the requested form, or rambling.

Quality and length are drawn independently: both forms come in three sizes (about 6, 14 and 32 words), so that length
carries no information. Only the form distinguishes the better response.
"""

from random import Random

from questions import Question

LABEL = {"en": "Answer", "de": "Antwort", "es": "Respuesta"}

REASONS = {
    "en": ["{because}.", "Reason: {because}.", "That is because {because}.", "Why: {because}.", "In short, {because}."],
    "de": ["{because}.", "Grund: {because}.", "Begründung: {because}."],
    "es": ["{because}.", "Motivo: {because}.", "La razón: {because}."],
}
CHECKS = {
    "en": [
        "To check it, go through the same steps once more from the end to the start.",
        "I looked at {topic} twice and both ways lead to the same result.",
        "No other result fits what was asked about {topic}, as far as I can see.",
        "Should anything in the question change, this has to be worked out again.",
        "It holds for the usual case; rare exceptions are left out on purpose.",
        "Keep this in mind when you next come across {topic}, it saves time.",
        "If a longer version is wanted, I can add each step in a second message.",
        "The rest of what could be said about {topic} does not alter that.",
        "This can be looked up in any handbook that has a page on {topic}.",
        "Written down in one line it is easy to copy, which was the idea.",
    ],
    "de": [
        "Die Probe rückwärts führt zu genau demselben Ergebnis.",
        "Mehr braucht es zum Thema {topic} an dieser Stelle nicht.",
        "Das gilt für den gewöhnlichen Fall und lässt sich leicht nachprüfen.",
    ],
    "es": [
        "La prueba al revés lleva exactamente al mismo resultado.",
        "Sobre {topic} no hace falta decir nada más por ahora.",
        "Esto vale para el caso normal y se puede comprobar sin esfuerzo.",
    ],
}

OPENERS = {
    "en": [
        "Oh, {topic}, what a lovely thing to bring up today!", "Hmm, let me think about {topic} for a moment.",
        "Well, where should one even begin?", "People have asked me about {topic} many times before.",
        "I was just reading something about {topic} the other week.", "That takes me back to my school days.",
        "There is so much one could say about {topic}.", "Thank you for such an interesting question!",
        "You know, my grandmother had strong opinions on {topic}.", "Before anything else, some background may help.",
        "Honestly, {topic} can be looked at from many sides.", "Let us not rush into things here.",
        "It is funny that you mention {topic} now.", "First of all, everybody sees this differently.",
        "I must admit that {topic} never fails to amuse me.", "Some would laugh about it, others would not.",
        "What a day to be talking about {topic}, with all this weather.", "As an assistant I come across many topics.",
        "Questions of this sort deserve patience.", "So you want to hear something on {topic}, good.",
        "Long ago nobody worried much about {topic}.", "Allow me to start with a little detour.",
    ],
    "de": [
        "Ach, {topic}, das ist wirklich ein weites Feld!", "Nun ja, wo soll man da bloß anfangen.",
        "Vielen Dank für diese überaus spannende Frage!", "Darüber habe ich neulich erst etwas gelesen.",
        "Meine Großmutter hatte dazu immer viel zu erzählen.", "Bevor ich dazu komme, ein kleiner Umweg.",
    ],
    "es": [
        "¡Ay, {topic}, qué tema tan bonito para hoy!", "Bueno, no sé ni por dónde empezar.",
        "¡Muchas gracias por una pregunta tan interesante!", "Hace poco leí algo parecido en una revista.",
        "Mi abuela siempre contaba muchas cosas sobre esto.", "Antes de nada, permítame dar un pequeño rodeo.",
    ],
}  # fmt: skip
MUSINGS = {
    "en": [
        "Some say that {topic} used to be simpler, and perhaps they have a point there.",
        "One could fill an evening with stories around {topic} and still not be through.",
        "Of course much depends on whom you ask, on the season and on the mood.",
        "A friend of mine once got it all mixed up, which led to a rather comical scene.",
        "On the one hand it looks plain, on the other hand things are seldom as plain as they look.",
        "In many households {topic} would be discussed at the dinner table for hours.",
        "I always picture a long road with many turnings when somebody raises such a point.",
        "There are books on {topic}, thick ones too, though hardly anyone finishes them.",
        "Whether it matters in the great scheme of things is a different story altogether.",
        "Teachers tend to explain {topic} in their own manner, each a little unlike the next.",
        "It might also be worth asking why one wants to know, but that leads too far.",
        "I could tell you about the history of {topic}, which is full of odd characters.",
        "Naturally there are details to consider, and behind each of them waits another one.",
        "With a cup of tea in hand it is easier to turn such matters over in the mind.",
        "Not long ago a whole radio programme was given over to {topic} and its admirers.",
        "Then again, feelings play a part, and feelings about {topic} run high at times.",
        "My view has shifted over the years and will most likely shift again.",
        "Looking at {topic} from far away, the picture gets blurry and a bit romantic.",
    ],
    "de": [
        "Manche sagen, {topic} sei früher viel einfacher gewesen, und wer weiß, vielleicht stimmt das.",
        "Es kommt natürlich sehr darauf an, wen man fragt und wie die Laune gerade ist.",
        "Man könnte darüber einen ganzen Abend lang plaudern und wäre noch nicht fertig.",
        "Einerseits sieht es schlicht aus, andererseits ist selten etwas so schlicht, wie es aussieht.",
    ],
    "es": [
        "Algunos dicen que {topic} antes era más sencillo, y quizá tengan algo de razón.",
        "Claro que todo depende de a quién se pregunte y del humor que tenga ese día.",
        "Se podría charlar sobre ello una tarde entera sin llegar nunca al final.",
        "Por un lado parece fácil, por otro lado casi nada es tan fácil como parece.",
    ],
}  # fmt: skip
ENDINGS = {
    "en": [
        "Somewhere along the way one arrives at {answer}, I suppose.",
        "My feeling would go towards {wrong}, more or less.",
        "It depends.", "Hard to say, really.", "What do you think yourself?", "In the end it may well be {answer}.",
        "Would you like me to go on about {topic}?", "I would rather not commit myself here.",
        "Could be {wrong}, could be something else.", "If pressed I might mumble {answer}.",
        "Anyway, that is a story for another day.", "Perhaps someone nearby can help with {topic}.",
        "Which side of it interests you most?", "Let us leave it at that for now.",
        "At least {answer} is what I have heard people say.", "I keep coming back to {wrong}, oddly enough.",
    ],
    "de": [
        "Am Ende landet man vermutlich irgendwo bei {answer}.", "Schwer zu sagen, ehrlich gesagt.",
        "Was meinen Sie denn selbst dazu?", "Vielleicht war es auch {wrong}.",
    ],
    "es": [
        "Al final se llega, supongo, a algo como {answer}.", "Es difícil decirlo, la verdad.",
        "¿Y usted qué piensa de todo esto?", "Quizá fuera también {wrong}.",
    ],
}  # fmt: skip


def answer_first(question: Question, size: int, rng: Random) -> str:
    """The better form: a line "Answer: …" and, by size (0, 1, 2), nothing, the reason, or the reason and more."""
    slots = {"because": question.because, "topic": question.topic}
    end = "" if question.answer.endswith(('."', '?"')) else "."
    lines = [f"{LABEL[question.language]}: {question.answer}{end}"]
    if size > 0:
        reason = rng.choice(REASONS[question.language]).format(**slots)
        lines.append(reason[0].upper() + reason[1:])
    if size > 1:
        lines[1] += " " + " ".join(
            text.format(**slots) for text in rng.sample(CHECKS[question.language], rng.choice((1, 2)))
        )
    return "\n".join(lines)


def rambling(question: Question, size: int, rng: Random) -> str:
    """The worse form: talk first, the answer late, wrong, or never; `size` (0, 1, 2) adds sentences."""
    slots = {"answer": question.answer, "wrong": question.wrong, "topic": question.topic}
    language = question.language
    opener, ending = rng.choice(OPENERS[language]), rng.choice(ENDINGS[language])
    musings = rng.sample(MUSINGS[language], (0, 0, 1)[size])
    parts = [rng.choice((opener, ending))] if size == 0 else [opener, *musings, ending]
    return " ".join(part.format(**slots) for part in parts).replace('.".', '."')
