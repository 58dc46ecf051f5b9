"""Two functions. What is at the top is loaded once and stays between calls."""

greeted = 0


def greet(name="world"):
    global greeted
    greeted += 1
    print("greeting", name)
    return {"text": f"Hello, {name}!", "greeted": greeted}


def primes(below=100):
    for number in range(2, below):
        if all(number % factor for factor in range(2, int(number**0.5) + 1)):
            yield number
